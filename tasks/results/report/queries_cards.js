"use strict";
/* A query as a card, and a picture in a dialog. Texts and ids enter the page as text nodes and
   attributes alone. */
const QueryCards = (() => {
  const { columns, images, files } = QueryData;
  const SVG = "http://www.w3.org/2000/svg";

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes))
      if (value !== null && value !== false) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  const foreign = (text, name = "bdi") => element(name, { dir: "auto" }, text);

  function absent() {
    return element("span", { class: "absent" }, "no picture");
  }

  /* The small picture, from the page or else from the folder; words where there is none. */
  function picture(image) {
    const inline = QueryData.inline(image);
    if (!inline && !files[image]) return absent();
    const made = element("img", { alt: "", loading: "lazy", decoding: "async" });
    made.addEventListener("error", () => {
      made.replaceWith(absent());
      document.getElementById("pictures-missing").hidden = false;
    });
    made.src = inline ? `data:image/jpeg;base64,${inline}` : `pictures/${files[image]}`;
    return made;
  }

  /* What an image is to a query, in words. */
  function roles(query, image) {
    const found = [];
    if (columns.targets[query]?.includes(image)) found.push("target");
    if (columns.reference[query] === image) found.push("reference");
    return found;
  }

  function facts(query, image) {
    const told = [];
    for (const [stage, number] of [["1", 0], ["2", 1]]) {
      const place = columns[`top${stage}`]?.[query]?.indexOf(image) ?? -1;
      const target = columns.targets[query]?.indexOf(image) ?? -1;
      if (place >= 0)
        told.push(`stage ${stage}: place ${place + 1}, score ${columns[`scores${stage}`][query][place]}`);
      else if (target >= 0 && columns[`targets${stage}`])
        told.push(`stage ${stage}: ${rank(columns[`targets${stage}`][query][target], number)}`);
    }
    return told;
  }

  const rank = (place, stage = 0) =>
    place ? `place ${place}` : stage ? "not re-ranked: stage 1's place" : "no place";

  /* How far an image moved between the stages: an arrow to see, words to hear. */
  function movement(from, to) {
    if (!from || !to) return { arrow: "", words: "" };
    const places = Math.abs(from - to);
    if (!places) return { arrow: "=", words: "the same place in both stages" };
    const [arrow, word] = from > to ? ["↑", "up"] : ["↓", "down"];
    return { arrow: `${arrow}${places}`, words: `${word} by ${places}` };
  }

  function button(query, image, label, caption, score = null) {
    const marks = roles(query, image);
    const made = element(
      "button",
      { type: "button", class: ["picture", ...marks].join(" "), "aria-label": label },
      picture(image),
      element("span", { class: "caption" }, caption),
      marks.length ? element("span", { class: "roles" }, marks.join(", ")) : null,
      score === null ? null : element("span", { class: "score" }, String(score)),
    );
    made.dataset.image = String(image);
    made.addEventListener("click", () => show(query, image));
    return made;
  }

  function strip(query, stage, label) {
    const top = columns[`top${stage}`][query] ?? [];
    const scores = columns[`scores${stage}`][query];
    const others = columns[`others${stage}`]?.[query] ?? [];
    const items = top.map((image, row) => {
      const place = row + 1;
      const moved = stage === 1 ? movement(place, others[row]) : movement(others[row], place);
      const known = [`${place}: ${images[image]}`, ...roles(query, image), `score ${scores[row]}`];
      const told = [...known, moved.words].filter(Boolean).join(", ");
      const caption = `${place} ${moved.arrow}`.trim();
      return element(
        "li", {}, button(query, image, told, caption, scores[row]),
      );
    });
    return [element("h4", {}, label), element("ol", { class: "top" }, ...items)];
  }

  /* Lines from the places of stage 1 to those of stage 2. */
  function lines(query) {
    const drawing = document.createElementNS(SVG, "svg");
    drawing.setAttribute("viewBox", "0 0 100 20");
    drawing.setAttribute("preserveAspectRatio", "none");
    drawing.setAttribute("aria-hidden", "true");
    const [before, after] = [columns.top1[query] ?? [], columns.top2[query] ?? []];
    before.forEach((image, from) => {
      const to = after.indexOf(image);
      if (to < 0) return;
      const line = document.createElementNS(SVG, "line");
      const ends = { x1: 10 * from + 5, y1: 1, x2: 10 * to + 5, y2: 19 };
      for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
      line.setAttribute("vector-effect", "non-scaling-stroke");
      line.setAttribute("class", roles(query, image).join(" "));
      drawing.append(line);
    });
    return drawing;
  }

  function subset(query) {
    const orders = [["Subset in stage 1", columns.subset1], ["Subset in stage 2", columns.subset2]];
    return orders
      .filter(([, order]) => order?.[query])
      .flatMap(([title, order]) => [
        element("h4", {}, title),
        element(
          "ol",
          { class: "top" },
          ...order[query].map((image, row) => {
            const told = [`${row + 1}: ${images[image]}`, ...roles(query, image)].join(", ");
            return element("li", {}, button(query, image, told, String(row + 1)));
          }),
        ),
      ]);
  }

  function standing(query) {
    if (columns.top1[query] === null) return "It could not be asked: see the problems.";
    if (columns.targets[query] === null) return "No label.";
    if (columns.cannot?.[query]) return "It cannot be answered: see the problems.";
    const [first, then] = [columns.rank1[query], columns.rank2?.[query]];
    const before = `The target is ${rank(first)} in stage 1`;
    if (columns.candidate[query] === false)
      return `${before}, beyond the candidates: lost.`;
    if (!QueryData.reranked) return `${before}.`;
    if (first === then) return `The target is ${rank(first)} in both stages.`;
    return `${before}, ${rank(then)} in stage 2: ${movement(first, then).words}.`;
  }

  /* Where the target is by one half of the query. */
  function halves(query) {
    return [["image", columns.imageRank], ["text", columns.textRank]]
      .filter(([, places]) => places?.[query])
      .map(([half, places]) => `by the ${half} alone ${rank(places[query])}`)
      .join(", ");
  }

  function question(query) {
    const kind = [QueryData.categories[columns.category[query]], columns.words[query] === 1 ? "1 word" : `${columns.words[query]} words`];
    if (columns.negation[query]) kind.push("a negation");
    const targets = columns.targets[query] ?? [];
    const reference = columns.reference[query];
    return element(
      "div",
      { class: "question" },
      element("h3", {}, element("a", { href: QueryData.link(query) }, foreign(columns.id[query]))),
      element("p", { class: "asked" }, foreign(columns.text[query])),
      element("p", { class: "soft" }, foreign(kind[0]), ` · ${kind.slice(1).join(" · ")}`),
      element("p", {}, standing(query)),
      halves(query) ? element("p", { class: "soft" }, `The target is ${halves(query)}.`) : null,
      element(
        "div",
        { class: "given" },
        button(query, reference, `reference ${images[reference]}`, ""),
        ...targets.map((image) => button(query, image, `target ${images[image]}`, "")),
      ),
    );
  }

  function card(query) {
    const isAsked = columns.top1[query] !== null;
    const made = element(
      "article",
      { class: "query", tabindex: "-1", "aria-label": `query ${columns.id[query]}` },
      question(query),
      element(
        "div",
        { class: "answers" },
        ...(isAsked ? strip(query, 1, "Stage 1") : []),
        ...(isAsked && QueryData.reranked ? [lines(query), ...strip(query, 2, "Stage 2")] : []),
        ...subset(query),
      ),
    );
    for (const [event, is] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]])
      made.addEventListener(event, ({ target }) => pair(made, target.closest(".picture"), is));
    return made;
  }

  /* The same image in the other stage, while one is looked at. */
  function pair(within, looked, is) {
    if (!looked) return;
    for (const one of within.querySelectorAll(`[data-image="${looked.dataset.image}"]`))
      one.classList.toggle("same", is);
  }

  /* Where else the image is an answer. */
  function showing(image) {
    const count = QueryData.showing(image);
    if (!count) return "among the first answers of no query";
    const link = QueryData.address({ ...QueryData.DEFAULTS, shows: images[image] });
    const made = element("a", { href: link }, `${count} ${count === 1 ? "query" : "queries"}`);
    made.addEventListener("click", () => document.getElementById("picture-dialog").close());
    return element("span", {}, "among the first answers of ", made);
  }

  function show(query, image) {
    const dialog = document.getElementById("picture-dialog");
    const inline = QueryData.inline(image);
    const frame = dialog.querySelector(".large");
    const note = dialog.querySelector(".note");
    const made = element("img", { alt: images[image] });
    note.textContent = "";
    made.addEventListener("error", () => {
      note.textContent = "The larger picture is not in the folder pictures/ beside this page.";
      if (!inline) return made.replaceWith(absent());
      if (!made.src.startsWith("data:")) made.src = `data:image/jpeg;base64,${inline}`;
    });
    if (files[image]) made.src = `pictures/${files[image]}`;
    else if (inline) made.src = `data:image/jpeg;base64,${inline}`;
    frame.replaceChildren(files[image] || inline ? made : absent());
    dialog.querySelector("h3").replaceChildren(foreign(images[image]));
    dialog
      .querySelector("ul")
      .replaceChildren(
        ...[...roles(query, image), ...facts(query, image)].map((told) => element("li", {}, told)),
        element("li", {}, showing(image)),
      );
    dialog.showModal();
  }

  return { card, element, foreign };
})();
