"use strict";
/* A table or a statement that is wider than its screen can be scrolled by keys. */
for (const one of document.querySelectorAll(".scroll, pre")) {
  new ResizeObserver(() => {
    const is = one.scrollWidth > one.clientWidth;
    const label = one.matches("pre") ? "text" : "table";
    for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", label]])
      is ? one.setAttribute(name, value) : one.removeAttribute(name);
  }).observe(one);
}
