"use strict";
(() => {
  const find = (id) => document.getElementById(id);

{% include "theme.js" %}

  // the order: what is not known comes last, whichever the direction
  const headings = [...document.querySelectorAll("#table thead th")], body = document.querySelector("#table tbody");
  const told = find("told");
  const value = (row, column) => {
    const text = row.cells[column].dataset.value;
    return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
  headings.forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => { if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none"); });
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const one = value(a, column), other = value(b, column);
        if (one === null || other === null) return (one === null) - (other === null);
        return (down ? -1 : 1) * compare(one, other);
      });
      body.replaceChildren(...rows);
      told.textContent = `sorted by ${heading.textContent.trim()}, ${down ? "descending" : "ascending"}`;
    });
  });

  // which verdicts
  const filter = find("filter");
  filter.hidden = false;
  filter.addEventListener("change", () => {
    const wanted = [...filter.querySelectorAll("input:checked")].map((input) => input.value);
    for (const row of body.rows) row.hidden = !wanted.includes(row.dataset.grade);
    told.textContent = `${[...body.rows].filter((row) => !row.hidden).length} sessions shown`;
  });
})();
