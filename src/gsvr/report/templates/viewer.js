"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const canvas = find("viewer-canvas"), frame = find("viewer-frame"), place = find("viewer-place");
  const data = [...document.querySelectorAll(".viewer-data")].map((node) => ({ ...node.dataset, node }));
  const bases = data.filter((image) => image.role === "volume" || image.role === "stack");
  const of = (role) => data.find((image) => image.role === role);

  const fail = (sentence) => {
    frame.hidden = true;
    find("viewer-keys").hidden = true;
    place.textContent = sentence;
  };

  // NiiVue itself, from the page
  const load = async () => {
    const packed = Uint8Array.from(atob(find("viewer-bundle").textContent), (letter) => letter.charCodeAt(0));
    const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
    return window.niivue;
  };

  const image = (niivue, { node, name, low, high }, colormap, opacity) => niivue.NVImage.loadFromBase64({
    base64: node.textContent, name: `${name}.nii.gz`, colormap, opacity, cal_min: Number(low), cal_max: Number(high),
  });

  const start = async () => {
    place.textContent = "Starting …";
    const probe = document.createElement("canvas").getContext("webgl2");
    if (!probe) {
      fail("This browser has no WebGL 2, which the viewer needs; the pictures on this page do without.");
      return;
    }
    probe.getExtension("WEBGL_lose_context")?.loseContext();
    const niivue = await load();
    const viewer = new niivue.Niivue({
      isRadiologicalConvention: true, backColor: [0, 0, 0, 1], crosshairColor: [1, 0.84, 0.35, 1], crosshairWidth: 0.4,
      crosshairWidthUnit: "mm", sagittalNoseLeft: true, fontColor: [1, 0.84, 0.35, 1],
      dragAndDropEnabled: false, loadingText: "", logLevel: "silent", show3Dcrosshair: false, multiplanarShowRender: 0,
      multiplanarEqualSize: true, isResizeCanvas: true,
    });
    viewer.onLocationChange = (location) => {
      const [x, y, z] = location.mm;
      const value = location.values?.[0]?.value;
      const side = (number, positive, negative) => `${Math.abs(number).toFixed(1)} mm ${number >= 0 ? positive : negative}`;
      place.textContent = `${side(x, "right", "left")}, ${side(y, "front", "back")}, ${side(z, "up", "down")}`
        + (value === undefined ? "" : `: ${value.toPrecision(4)}`);
    };
    await viewer.attachToCanvas(canvas);
    viewer.setSliceType(viewer.sliceTypeMultiplanar);

    const mask = find("viewer-mask"), uncertainty = find("viewer-uncertainty"), choice = find("viewer-image");
    const overlays = () => {
      viewer.volumes.slice(1).forEach((volume, number) => {
        viewer.setOpacity(number + 1, volume.role === "mask" ? 0.25 * mask.checked : Number(uncertainty.value));
      });
    };
    const show = async () => {
      while (viewer.volumes.length) viewer.removeVolumeByIndex(0);
      const base = bases[Number(choice.value)];
      viewer.addVolume(await image(niivue, base, "gray", 1));
      for (const [role, colormap] of base.role === "volume" ? [["uncertainty", "plasma"], ["mask", "blue"]] : []) {
        if (!of(role)) continue;
        const overlay = await image(niivue, of(role), colormap, 0);
        overlay.role = role;
        viewer.addVolume(overlay);
      }
      for (const control of [mask, uncertainty]) if (control) control.disabled = base.role !== "volume";
      overlays();
      viewer.moveCrosshairInVox(0, 0, 0);
    };
    await show();
    choice.addEventListener("change", show);
    mask?.addEventListener("change", overlays);
    uncertainty?.addEventListener("input", overlays);
    find("viewer-controls").hidden = false;

    const steps = {
      ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0],
      PageUp: [0, 0, 1], PageDown: [0, 0, -1],
    };
    canvas.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      viewer.moveCrosshairInVox(...steps[event.key]);
    }, { capture: true });
    frame.dataset.state = "ready";
  };

  // the wheel scrolls the page until the viewer is in use
  frame.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) event.stopPropagation();
  }, { capture: true });
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    start().catch((error) => fail(`The viewer does not start here (${error.message}); the pictures on this page do without.`));
  }).observe(frame);
})();
