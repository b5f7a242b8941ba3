"use strict";
/* A table that is wider than its screen can be scrolled by keys. */
for (const table of document.querySelectorAll(".scroll")) {
  new ResizeObserver(() => {
    const is = table.scrollWidth > table.clientWidth;
    for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", "table"]])
      is ? table.setAttribute(name, value) : table.removeAttribute(name);
  }).observe(table);
}
