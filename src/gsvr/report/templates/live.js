"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const NORMALS = { axial: [0, 0, -1], coronal: [0, 1, 0], sagittal: [-1, 0, 0], oblique: [-0.45, 0.35, -0.82] };
  const LETTERS = { axial: "RLAP", coronal: "RLSI", sagittal: "APSI" };  // left, right, top, bottom
  const SIZE = 256, MARGIN = 1.2, MOST_IN_LOG = 200, MOST_SLICES = 2000;
  const COLOURS = ["--axis-0", "--axis-1", "--axis-2", "--dot"];
  const state = { name: null, source: null, version: 0, centre: null, spacing: 0.5, slices: [], stacks: new Set(), viewer: null };

  // directions of a picture, as gsvr.render.plane.plane_frame has them
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const unit = (a) => a.map((x) => x / Math.hypot(...a));
  const along = (a, ...steps) => a.map((x, i) => x + steps.reduce((sum, [length, way]) => sum + length * way[i], 0));
  const axes = (normal) => {
    const toward = unit(normal), top = Math.abs(toward[2]) > Math.SQRT1_2 ? [0, 1, 0] : [0, 0, 1];
    const up = unit(along(top, [-dot(toward, top), toward]));
    return { toward, up, right: cross(up, toward) };
  };

  const panels = Object.fromEntries([...document.querySelectorAll("[data-plane]")].map((frame) => {
    const image = document.createElement("img");
    image.width = image.height = SIZE;
    image.alt = "";
    const lines = ["x", "y"].map((side) => Object.assign(document.createElement("span"), { className: `cross ${side}` }));
    image.hidden = lines[0].hidden = lines[1].hidden = true;
    const letters = Object.assign(document.createElement("span"), { className: "letters", hidden: true });
    letters.append(...[...LETTERS[frame.dataset.plane] ?? ""].map((letter, side) =>
      Object.assign(document.createElement("i"), { className: "wens"[side], textContent: letter })));
    frame.append(image, ...lines, letters);
    return [frame.dataset.plane, { frame, image, lines, letters, busy: false, again: false }];
  }));

  const address = (file) => `examinations/${encodeURIComponent(state.name)}/${file}`;

  // one picture at a time for each panel; of what is asked meanwhile only the last counts
  const draw = async (plane) => {
    const panel = panels[plane];
    if (!state.centre) return;
    if (panel.busy) { panel.again = true; return; }
    panel.busy = true;
    const [x, y, z] = state.centre, [nx, ny, nz] = NORMALS[plane];
    const query = new URLSearchParams({ x, y, z, nx, ny, nz, size: SIZE, spacing: state.spacing, v: state.version });
    if (find("uncertainty-shown").checked) query.set("layer", "uncertainty");
    try {
      const response = await fetch(address(`plane.png?${query}`));
      if (response.ok) {
        const old = panel.image.src;
        panel.image.src = URL.createObjectURL(await response.blob());
        await panel.image.decode().catch(() => {});
        if (old.startsWith("blob:")) URL.revokeObjectURL(old);
        panel.image.hidden = panel.lines[0].hidden = panel.lines[1].hidden = panel.letters.hidden = false;
        panel.lines[0].style.left = panel.lines[1].style.top = "50%";
        panel.image.alt = `${plane} plane`;
        panel.frame.dataset.drawn = String(Number(panel.frame.dataset.drawn ?? 0) + 1);
      }
    } catch { /* the connection says so itself */ }
    panel.busy = false;
    if (panel.again) { panel.again = false; draw(plane); }
  };
  const drawAll = () => Object.keys(panels).forEach(draw);
  find("uncertainty-shown").addEventListener("change", drawAll);

  for (const [plane, { frame }] of Object.entries(panels)) {
    let start = null, moved = false;
    const place = (event) => {
      const box = frame.getBoundingClientRect();
      const scale = SIZE * state.spacing / box.width;
      return [(event.clientX - box.left - box.width / 2) * scale, (box.height / 2 - (event.clientY - box.top)) * scale];
    };
    const tilt = (sideways, upwards) => {
      const { toward, up, right } = axes(NORMALS.oblique);
      NORMALS.oblique = unit(along(toward, [-sideways, right], [-upwards, up]));
      draw("oblique");
    };
    const shift = (length) => {
      if (!state.centre) return;
      state.centre = along(state.centre, [length, axes(NORMALS[plane]).toward]);
      drawAll();
    };
    frame.addEventListener("pointerdown", (event) => {
      start = [event.clientX, event.clientY];
      moved = false;
      frame.setPointerCapture(event.pointerId);
    });
    frame.addEventListener("pointermove", (event) => {
      if (!start) return;
      const [x, y] = [event.clientX - start[0], event.clientY - start[1]];
      if (!moved && Math.hypot(x, y) < 4) return;
      moved = true;
      start = [event.clientX, event.clientY];
      if (plane === "oblique") tilt(x / 120, -y / 120);
    });
    frame.addEventListener("pointerup", (event) => {
      if (start && !moved && state.centre) {
        const [u, v] = place(event), { up, right } = axes(NORMALS[plane]);
        state.centre = along(state.centre, [u, right], [v, up]);
        drawAll();
      }
      start = null;
    });
    frame.addEventListener("pointercancel", () => { start = null; });
    frame.addEventListener("wheel", (event) => { event.preventDefault(); shift(Math.sign(event.deltaY)); }, { passive: false });
    if (plane === "oblique") {
      const steps = { ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, 0.05], ArrowDown: [0, -0.05] };
      frame.addEventListener("keydown", (event) => {
        if (event.key in steps) tilt(...steps[event.key]);
        else if (event.key === "PageUp" || event.key === "PageDown") shift(event.key === "PageUp" ? -1 : 1);
        else return;
        event.preventDefault();
      });
    }
  }

  const refresh = async () => {
    state.version += 1;
    try {
      const found = await (await fetch(address("state"))).json();
      if (!found) return;
      state.centre ??= found.middle;
      state.spacing = MARGIN * found.extent / SIZE;
      const known = Array.isArray(found.uncertainty_scale);
      find("uncertainty-shown").disabled = !known;
      find("uncertainty-scale").textContent = known
        ? `standard deviation from ${found.uncertainty_scale.map((share) => (100 * share).toFixed(1)).join(" (dark blue) to ")} % of white (yellow)`
        : "known with the verdict";
      find("quality").textContent = found.quality === "final" ? "final volume" : "quick volume";
      find("quality").className = `badge ${found.quality}`;
      drawAll();
      if (state.viewer) await loadVolume();
    } catch { /* the connection says so itself */ }
  };

  const WORDS = { good: "Good: usable", doubtful: "Doubtful: look closer before you use it", failed: "Failed: do not use" };
  const showVerdict = (event) => {
    find("verdict").className = `verdict ${event ? event.grade : "none"}`;
    find("verdict-word").textContent = event ? WORDS[event.grade] ?? event.grade : "No verdict yet";
    find("verdict-reasons").replaceChildren(...(event?.reasons ?? []).map((reason) => {
      return Object.assign(document.createElement("li"), { textContent: reason });
    }));
    find("verdict-advice").textContent = (event?.advice ?? []).join("; ");
  };

  const showAdvice = (event) => {
    find("advice").textContent = event ? event.sentence : "Told with the verdict, from two stacks on.";
    find("uncertainty").textContent = typeof event?.uncertainty === "number" ? `${(100 * event.uncertainty).toFixed(1)} % of white` : "-";
  };

  const percent = (share) => (typeof share === "number" ? `${Math.round(100 * share)} %` : "-");
  const SENTENCES = {
    started: (event) => (event.stacks ? `started again, ${event.stacks} stacks are here already` : "started"),
    stack: (event) => `${event.stack} arrived, ${event.slices} slices`,
    volume: (event) => `${event.quality} volume of ${event.stacks.length} stacks, ${event.latency_seconds.toFixed(1)} s after the last one`,
    verdict: (event) => `verdict: ${event.grade}`,
    advice: (event) => event.sentence,
    sent: (event) => `volume sent to ${event.peer}, ${event.images} images`,
    error: (event) => event.reason,
  };
  const log = (event) => {
    const sentence = SENTENCES[event.event]?.(event);
    if (!sentence) return;
    const time = new Date(1000 * event.time).toLocaleTimeString();
    const entry = Object.assign(document.createElement("li"), { textContent: `${time}  ${sentence}`, className: `event-${event.event}` });
    find("log").prepend(entry);
    while (find("log").children.length > MOST_IN_LOG) find("log").lastElementChild.remove();
  };

  const drawMotion = () => {
    const svg = document.querySelector("#motion svg"), slices = state.slices.filter((slice) => slice.movement_mm !== null && slice.used);
    const most = Math.max(2, ...slices.map((slice) => slice.movement_mm)), names = [...new Set(slices.map((slice) => slice.stack))];
    const make = (name, attributes, text) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      if (text) node.textContent = text;
      return node;
    };
    const nodes = [0, 0.5, 1].map((share) => make("text", { x: 4, y: 155 - 140 * share + 4, "font-size": 12, fill: "currentColor" }, (most * share).toFixed(1)));
    slices.forEach((slice, number) => {
      const colour = `var(${COLOURS[names.indexOf(slice.stack) % COLOURS.length]})`;
      const dot = make("circle", {
        cx: 40 + 950 * (number + 0.5) / slices.length, cy: 155 - 140 * Math.min(slice.movement_mm / most, 1), r: 4,
        stroke: colour, "stroke-width": 1.5, fill: (slice.weight ?? slice.agreement) < 0.5 ? "none" : colour,
        opacity: slice.arriving ? 0.6 : 1,
      });
      const which = slice.arriving ? `the ${slice.number + 1}. slice that came` : `slice ${slice.slice_index}`;
      dot.append(make("title", {}, `${slice.stack}, ${which}: ${slice.movement_mm.toFixed(1)} mm`));
      nodes.push(dot);
    });
    svg.replaceChildren(...nodes);
  };

  const arrivingWords = (event) => {
    const seconds = `${event.stack}: a slice after ${event.latency_seconds.toFixed(2)} s`;
    if (!event.pose) return `${seconds}; there is no volume yet to place it in.`;
    if (!event.used) return `${seconds}; it shows nothing of the brain.`;
    const moved = event.movement_mm === null ? "" : `, ${event.movement_mm.toFixed(1)} mm from the one before`;
    return `${seconds}${moved}; ${Math.round(100 * event.agreement)} % agreement with the volume.`;
  };
  const take = (event) => {
    log(event);
    if (event.event === "slice") {
      // what is told of a whole stack replaces what was told of its slices as they came
      const same = (slice) => slice.stack === event.stack && (event.arriving ? false : slice.arriving || slice.slice_index === event.slice_index);
      state.slices = [...state.slices.filter((slice) => !same(slice)), event].slice(-MOST_SLICES);
      find("n-slices").textContent = state.slices.filter((slice) => slice.pose).length;
      if (event.arriving) find("arriving").textContent = arrivingWords(event);
    } else if (event.event === "stack") {
      state.stacks.add(event.stack);
      find("arriving").textContent = "";
      find("n-stacks").textContent = state.stacks.size;
    } else if (event.event === "volume") {
      find("believed").textContent = percent(event.believed);
      find("coverage").textContent = percent(event.coverage);
      find("latency").textContent = `${event.latency_seconds.toFixed(1)} s`;
      if (event.quality === "quick") { showVerdict(null); showAdvice(null); }  // those before were of fewer stacks
    } else if (event.event === "verdict") {
      showVerdict(event);
    } else if (event.event === "advice") {
      showAdvice(event);
    }
  };

  const follow = (name) => {
    state.source?.close();
    Object.assign(state, { name, centre: null, slices: [], stacks: new Set() });
    for (const file of ["volume.nii.gz", "mask.nii.gz", "report.html", "events.jsonl"]) {
      find(`file-${file.split(".")[0]}`).href = address(file);
    }
    find("quality").textContent = "no volume yet";
    find("quality").className = "badge";
    const source = state.source = new EventSource(address("events"));
    source.addEventListener("before", (message) => {
      find("log").replaceChildren();
      Object.assign(state, { slices: [], stacks: new Set() });
      showVerdict(null);
      showAdvice(null);
      JSON.parse(message.data).forEach(take);
      drawMotion();
      refresh();
    });
    source.onmessage = (message) => {
      const event = JSON.parse(message.data);
      take(event);
      if (event.event === "slice") drawMotion();
      if (event.event === "volume" || event.event === "advice") refresh();
    };
    source.onopen = () => { find("connection").textContent = "connected"; find("connection").className = ""; };
    source.onerror = () => { find("connection").textContent = "connection lost, trying again …"; find("connection").className = "lost"; };
  };

  // examinations that begin while the page is open; the newest is shown until somebody chooses
  let chosen = false;
  const look = async () => {
    try {
      const names = (await (await fetch("examinations")).json()).map((one) => one.name), select = find("examination");
      if (names.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
        select.replaceChildren(...names.map((name) => new Option(name, name)));
        if (state.name && chosen) select.value = state.name;
      }
      if (names.length && (!state.name || (!chosen && names[0] !== state.name))) follow(names[0]);
      if (state.name) select.value = state.name;
    } catch { /* the connection says so itself */ }
  };
  find("examination").addEventListener("change", (event) => { chosen = true; follow(event.target.value); });
  look();
  setInterval(look, 2000);

  const loadVolume = async () => {
    await state.viewer.loadVolumes([{ url: `${address("volume.nii.gz")}?v=${state.version}`, name: "volume.nii.gz", colormap: "gray" }]);
    find("viewer-frame").dataset.state = "ready";
  };
  find("viewer-start").addEventListener("click", async () => {
    find("viewer-start").disabled = true;
    find("viewer-frame").hidden = false;
    if (!document.createElement("canvas").getContext("webgl2")) {
      find("viewer-place").textContent = "This browser has no WebGL 2, which the viewer needs; the planes above do without.";
      return;
    }
    try {
      await new Promise((done, failed) => {
        document.head.append(Object.assign(document.createElement("script"), { src: "niivue.js", onload: done, onerror: failed }));
      });
      state.viewer = new window.niivue.Niivue({
        isRadiologicalConvention: true, backColor: [0, 0, 0, 1], crosshairColor: [1, 0.84, 0.35, 1], crosshairWidth: 0.4,
        crosshairWidthUnit: "mm", sagittalNoseLeft: true, dragAndDropEnabled: false, loadingText: "", logLevel: "silent",
        show3Dcrosshair: false, multiplanarShowRender: 0, isResizeCanvas: true,
      });
      await state.viewer.attachToCanvas(find("viewer-canvas"));
      state.viewer.setSliceType(state.viewer.sliceTypeMultiplanar);
      await loadVolume();
    } catch (error) {
      state.viewer = null;
      find("viewer-place").textContent = `The viewer does not start here (${error.message ?? "not loaded"}); the planes above do without.`;
    }
  });
})();
