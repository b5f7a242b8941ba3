"use strict";
/* The query browser: its controls, its address and its keys. */
(() => {
  const { element, foreign, card } = QueryCards;
  const PER_PAGE = 5;
  const byId = (id) => document.getElementById(id);
  const browser = byId("query-browser");
  const form = byId("query-filters");
  const results = byId("query-results");
  const status = byId("query-status");
  const help = byId("keys-dialog");
  let state = { ...QueryData.DEFAULTS, q: null };
  let found = [];

  const pages = () => Math.max(1, Math.ceil(found.length / PER_PAGE));
  const page = () => Math.min(Math.max(1, Math.trunc(Number(state.page)) || 1), pages());

  function look() {
    if (state.q === null) found = QueryData.found(state);
    render();
  }

  function render() {
    const alone = state.q === null ? null : QueryData.numbered(state.q);
    const start = (page() - 1) * PER_PAGE;
    const shown = alone === null ? found.slice(start, start + PER_PAGE) : [alone].filter((one) => one >= 0);
    results.replaceChildren(...shown.map(card));
    status.replaceChildren(...told(alone, start, shown.length));
    for (const one of browser.querySelectorAll(".pages")) one.hidden = alone !== null;
    for (const one of browser.querySelectorAll(".page-number"))
      one.textContent = `Page ${page()} of ${pages()}`;
    disable('[data-turn="-1"]', page() === 1);
    disable('[data-turn="1"]', page() === pages());
  }

  /* Not by the attribute: a button that is turned off would lose the focus. */
  function disable(buttons, is) {
    for (const one of browser.querySelectorAll(buttons)) one.setAttribute("aria-disabled", is);
  }

  function told(alone, start, shown) {
    if (alone !== null) {
      const back = element("a", { href: QueryData.address(state) }, "All queries");
      if (alone >= 0) return ["One query. ", back];
      const more = QueryData.count < QueryData.all ? ": it is left out, or there is none" : "";
      return ["This page has no query ", foreign(state.q), `${more}. `, back];
    }
    const all = QueryData.count.toLocaleString("en");
    if (!found.length) return [`None of ${all} queries.`];
    return [`${start + 1} to ${start + shown} of ${found.length.toLocaleString("en")}; ${all} queries in all.`];
  }

  function fill() {
    for (const [name, value] of Object.entries(state)) {
      const field = form.elements.namedItem(name);
      if (field?.type === "checkbox") field.checked = value !== "";
      else if (field) field.value = value;
      if (field?.selectedIndex === -1) field.selectedIndex = 0; // a choice of other pages
      if (field?.type === "select-one") state[name] = field.value;
    }
  }

  function asked() {
    const asked = { ...QueryData.DEFAULTS, q: null };
    for (const name of Object.keys(asked)) {
      const field = form.elements.namedItem(name);
      if (field?.type === "checkbox") asked[name] = field.checked ? "1" : "";
      else if (field) asked[name] = field.value;
    }
    return asked;
  }

  function change(next) {
    state = { ...next, q: null };
    history.replaceState(null, "", QueryData.address(state));
    look();
  }

  function turn(by) {
    if (state.q !== null || page() + by < 1 || page() + by > pages()) return false;
    change({ ...state, page: String(page() + by) });
    results.scrollIntoView({ block: "start" });
    return true;
  }

  function step(by) {
    const cards = [...results.children];
    const at = cards.indexOf(document.activeElement?.closest("article"));
    const next = at < 0 ? (by > 0 ? 0 : cards.length - 1) : at + by;
    if (cards[next]) return focus(cards[next]);
    if (turn(by)) focus(by > 0 ? results.firstElementChild : results.lastElementChild);
  }

  function focus(one) {
    one?.focus({ preventScroll: true });
    one?.scrollIntoView({ block: "nearest" });
  }

  function follow() {
    const named = QueryData.parse(location.hash);
    if (!named) return;
    // A link to a query keeps the filters, for the way back.
    state = named.q === null ? named : { ...state, q: named.q };
    fill();
    look();
    (state.q === null ? form : status).scrollIntoView({ block: "start" });
    if (state.q !== null) focus(results.firstElementChild);
  }

  const KEYS = {
    n: () => turn(1) && focus(results.firstElementChild),
    p: () => turn(-1) && focus(results.firstElementChild),
    j: () => step(1),
    k: () => step(-1),
    "/": () => form.elements.namedItem("find").focus(),
    "?": () => help.showModal(),
  };

  function typed(event) {
    const isText = event.target.closest("input:not([type=checkbox]), select, textarea, [contenteditable]");
    const isHeld = event.ctrlKey || event.metaKey || event.altKey;
    const act = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
    if (!act || isText || isHeld || !byId("keys-on").checked || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    act();
  }

  /* How many queries each choice of a list has. */
  function count() {
    for (const list of form.querySelectorAll("select[data-counted]"))
      for (const one of list.options)
        if (one.value) one.textContent += ` (${QueryData.counted(list.name, one.value)})`;
  }

  form.addEventListener("input", () => change(asked()));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    state = { ...QueryData.DEFAULTS, q: null };
    fill();
    change(state);
  });
  for (const one of browser.querySelectorAll("[data-turn]"))
    one.addEventListener("click", () => turn(Number(one.dataset.turn)));
  byId("show-keys").addEventListener("click", () => help.showModal());
  document.addEventListener("keydown", typed);
  window.addEventListener("hashchange", follow);
  count();
  look();
  browser.hidden = false;
  follow();
})();
