"use strict";
(() => {
  const find = (id) => document.getElementById(id);

{% include "theme.js" %}

  // which picture of several in one place
  for (const box of document.querySelectorAll("[data-choice]")) {
    for (const input of document.querySelectorAll(`input[name="${box.dataset.choice}"]`)) {
      input.addEventListener("change", () => {
        for (const framed of box.querySelectorAll(".framed")) {
          framed.querySelectorAll("img").forEach((image, number) => { image.hidden = number !== Number(input.value); });
        }
      });
    }
  }

  // slices: one stack, another order
  const stack = find("stack-filter"), order = find("slice-order"), more = find("more");
  const cards = [...document.querySelectorAll(".card")], first = find("cards"), rest = find("more-cards");
  const shown = first.children.length;
  const arrange = () => {
    const chosen = cards.filter((card) => !stack.value || card.dataset.stack === stack.value);
    const value = (card) => Number(card.dataset[order.value]);
    if (order.value === "order") {
      chosen.sort((a, b) => a.dataset.stack.localeCompare(b.dataset.stack) || value(a) - value(b));
    }
    first.replaceChildren(...chosen.slice(0, shown));
    if (!rest) return;
    rest.replaceChildren(...chosen.slice(shown));
    more.hidden = chosen.length <= shown;
    more.querySelector("summary").textContent = `All other ${chosen.length - shown} slices`;
  };
  stack.addEventListener("change", arrange);
  order.addEventListener("change", arrange);

  // methods
  const copy = find("copy-methods");
  copy.hidden = false;
  copy.addEventListener("click", () => {
    const range = document.createRange();
    range.selectNodeContents(find("methods-text"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    find("copied").textContent = document.execCommand("copy") ? "copied" : "selected: copy with the keyboard";
  });

  // rating
  const form = find("rating-form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const answers = new FormData(form);
    const rating = {
      format: "gsvr-rating", version: 1, examination: form.dataset.name, gsvr: form.dataset.version,
      quality: Number(answers.get("quality")), faults: answers.getAll("faults"),
      rater: answers.get("rater"), comment: answers.get("comment"), date: new Date().toISOString(),
    };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(rating, null, 2) + "\n"], { type: "application/json" }));
    link.download = `${form.dataset.name}_rating.json`;
    link.click();
    URL.revokeObjectURL(link.href);
    find("saved").textContent = `saved as ${link.download}`;
  });
})();
