"use strict";
/* The run's queries, and which of them a state of the browser asks for. A query is its number in
   the columns; a state is texts by name, as the address has them. Touches no element. */
const QueryData = (() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const { columns, ...known } = read("queries-data");
  const count = columns.id.length;
  const all = Array.from({ length: count }, (_, query) => query);
  const last = known.reranked ? columns.rank2 : columns.rank1;
  const answers = known.reranked ? columns.top2 : columns.top1;
  let inlined = null; // read when the first picture is asked for
  let haystacks = null; // built at the first search

  const DEFAULTS = {
    find: "", category: "", moved: "", answer: "", label: "", negation: "", shows: "", least: "",
    most: "",
    sort: "order", descending: "", page: "1",
  };

  const isLabelled = (query) => columns.targets[query] !== null;
  const MOVED = {
    up: (query) => columns.gained[query] > 0,
    down: (query) => columns.gained[query] < 0,
    same: (query) => columns.gained[query] === 0,
    kept: (query) => columns.candidate[query] === true,
    lost: (query) => columns.candidate[query] === false && !columns.cannot?.[query],
    cannot: (query) => columns.cannot?.[query] === true,
  };
  const ANSWER = {
    right: (query) => last[query] === 1,
    wrong: (query) => isLabelled(query) && last[query] !== 1,
    both: (query) => columns.rank1[query] === 1 && last[query] === 1,
    won: (query) => isLabelled(query) && columns.rank1[query] !== 1 && last[query] === 1,
    spoiled: (query) => columns.rank1[query] === 1 && last[query] !== 1,
    image: (query) => columns.imageRank?.[query] === 1,
    text: (query) => columns.textRank?.[query] === 1,
    reference: (query) => shown(query)[0] === columns.reference[query],
  };
  const LABEL = {
    some: isLabelled,
    none: (query) => !isLabelled(query),
    unasked: (query) => columns.top1[query] === null,
  };
  const FILTERS = {
    find: (value) => {
      const terms = folded(value).split(/\s+/).filter(Boolean);
      return (query) => terms.every((term) => haystack(query).includes(term));
    },
    category: (value) => (query) => known.categories[columns.category[query]] === value,
    shows: (value) => {
      const image = known.images.indexOf(value);
      return (query) => shown(query).includes(image);
    },
    moved: (value) => MOVED[value],
    answer: (value) => ANSWER[value],
    label: (value) => LABEL[value],
    negation: (value) => (query) => columns.negation[query] === (value === "yes"),
    least: (value) => (query) => columns.words[query] >= Number(value),
    most: (value) => (query) => columns.words[query] <= Number(value),
  };
  const SORTS = {
    order: (query) => query,
    gained: (query) => columns.gained[query],
    stage1: (query) => columns.rank1[query],
    last: (query) => last[query],
    length: (query) => [...columns.text[query]].length,
    id: () => 0, // what ties are parted by
  };

  /* What an address may say of a choice; of the rest, anything. What is none of these is not taken. */
  const isNumber = (value) => /^\d{1,9}$/.test(value);
  const KNOWN = {
    category: (value) => known.categories.includes(value),
    moved: (value) => Object.hasOwn(MOVED, value),
    answer: (value) => Object.hasOwn(ANSWER, value),
    label: (value) => Object.hasOwn(LABEL, value),
    negation: (value) => value === "yes" || value === "no",
    sort: (value) => Object.hasOwn(SORTS, value),
    descending: (value) => value === "1",
    least: isNumber,
    most: isNumber,
    page: isNumber,
  };

  /* The query's first answers, in its last stage. */
  const shown = (query) => answers?.[query] ?? [];

  const folded = (text) => text.normalize("NFKC").toLowerCase();

  /* What a search looks in: the text, and the ids of query, reference and targets. */
  function haystack(query) {
    haystacks ??= new Array(count);
    haystacks[query] ??= folded(
      [
        columns.text[query],
        columns.id[query],
        ...[columns.reference[query], ...(columns.targets[query] ?? [])].map(
          (image) => known.images[image],
        ),
      ].join("\n"),
    );
    return haystacks[query];
  }

  function accepted(state) {
    const tests = Object.entries(FILTERS)
      .filter(([name]) => state[name] !== "")
      .map(([name, test]) => test(state[name]));
    return all.filter((query) => tests.every((test) => test(query)));
  }

  function byId(one, other) {
    const [a, b] = [columns.id[one], columns.id[other]];
    return a < b ? -1 : Number(a > b);
  }

  /* Unknown values come last in both directions; ties are parted by id. */
  function sorted(queries, state) {
    const key = SORTS[state.sort];
    const keys = new Map(queries.map((query) => [query, key(query) ?? null]));
    const sign = state.descending ? -1 : 1;
    return queries.sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      if (a === b) return (state.sort === "id" ? sign : 1) * byId(one, other);
      if (a === null || b === null) return a === null ? 1 : -1;
      return sign * (a - b);
    });
  }

  /* The state that an address names: null when it is no address of the browser. */
  function parse(hash) {
    const named = new URLSearchParams(hash.replace(/^#/, ""));
    if (!named.has("queries") && !named.has("q")) return null;
    const state = { ...DEFAULTS, q: named.get("q") };
    for (const name of Object.keys(DEFAULTS))
      if (named.has(name) && (KNOWN[name]?.(named.get(name)) ?? true)) state[name] = named.get(name);
    return state;
  }

  function address(state) {
    const named = new URLSearchParams();
    for (const [name, value] of Object.entries(DEFAULTS))
      if (state[name] !== value) named.set(name, state[name]);
    return ["#queries", named.toString()].filter(Boolean).join("&");
  }

  return {
    ...known,
    columns,
    count,
    last,
    DEFAULTS,
    found: (state) => sorted(accepted(state), state),
    counted: (name, value) => accepted({ ...DEFAULTS, [name]: value }).length,
    parse,
    address,
    link: (query) => `#q=${encodeURIComponent(columns.id[query])}`,
    showing: (image) => all.filter((query) => shown(query).includes(image)).length,
    numbered: (id) => columns.id.indexOf(id),
    inline: (image) => (inlined ??= read("pictures-data"))[image],
  };
})();
