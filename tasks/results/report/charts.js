"use strict";
// Draws each figure of the page from the JSON beside it, anew when its width changes. Colours are
// the page's own variables, so that dark mode and print need no other drawing.
(() => {
  const MEANT = {
    "stage 1": "--stage1", "stage 2": "--stage2", "gain": "--good",
    "ceiling": "--ink", "coverage": "--ink",
    "moved up": "--good", "moved down": "--bad", "stayed": "--soft",
    "found": "--good", "ordered wrong": "--stage1", "lost in stage 1": "--bad",
    "cannot be answered": "--soft", "target": "--good", "kept": "--stage1", "dropped": "--soft",
  };
  const OTHERS = ["--series1", "--series2", "--series3", "--series4", "--series5", "--series6"];
  const DASHES = ["none", "6 3", "2 3", "8 3 2 3"]; // lines are told apart without colours, too
  const BAR = 22, PHONE = 480, LETTER = 6.9;
  const WIDEST_NAME = {phone: 24, desk: 40}; // letters
  const PAPER = {alone: 480, beside: 328, height: 0.72}; // as wide as page.css prints them

  const rowsOf = ({columns}) => {
    const names = Object.keys(columns);
    const count = names.length ? columns[names[0]].length : 0;
    return Array.from({length: count}, (_, i) =>
      Object.fromEntries(names.map((name) => [name, columns[name][i]])));
  };
  const distinct = (rows, field) => [...new Set(rows.map((row) => row[field]))];
  const has = (rows, field) => rows.some((row) => row[field] != null);
  const clipped = (name, most) => {
    const letters = Array.from(String(name));
    return letters.length > most ? letters.slice(0, most - 1).join("") + "…" : name;
  };

  const told = ({labels, percent}) => (percent ? `${labels.y} (%)` : labels.y);

  const colours = (rows) => {
    if (!has(rows, "series")) return {};
    const meant = Object.keys(MEANT); // in this order; what has no meaning of its own comes before
    const domain = distinct(rows, "series").sort((a, b) => meant.indexOf(a) - meant.indexOf(b));
    let next = 0;
    const range = domain.map((name) =>
      `var(${MEANT[name] ?? OTHERS[next++ % OTHERS.length]})`);
    return {color: {type: "ordinal", domain, range}};
  };

  const paint = (rows) => (has(rows, "series") ? "series" : "var(--stage2)");

  const rules = (figure, place = "top") => {
    const at = Object.entries(figure.rules).map(([words, x]) => ({words, x}));
    if (!at.length) return [];
    return [
      Plot.ruleX(at, {x: "x", stroke: "currentColor", strokeDasharray: "3 3", strokeOpacity: 0.7}),
      Plot.text(at, {
        x: "x", text: "words", frameAnchor: place, textAnchor: "start", dx: 4, dy: place === "top" ? 6 : -8,
        fill: "currentColor", stroke: "var(--paper)", strokeWidth: 4,
      }),
    ];
  };

  const line = (figure, rows) => {
    const series = has(rows, "series") ? distinct(rows, "series") : [];
    const z = series.length ? "series" : null;
    // A line says how a height changes: from the middle up, zero is left out.
    const heights = rows.flatMap(({y, low}) => [y, low]).filter((one) => one != null);
    const zero = Math.min(...heights) < Math.max(...heights) / 2;
    const marks = [...(zero ? [Plot.ruleY([0], {strokeOpacity: 0.3})] : []), ...rules(figure, "bottom")];
    if (has(rows, "low")) {
      marks.push(Plot.areaY(rows, {
        x: "x", y1: "low", y2: "high", z, fill: paint(rows), fillOpacity: 0.14,
      }));
    }
    const groups = series.length ? series : [undefined];
    groups.forEach((name, i) => marks.push(Plot.lineY(
      rows.filter((row) => row.series === name),
      {x: "x", y: "y", stroke: paint(rows), strokeWidth: 2, strokeDasharray: DASHES[i % 4]},
    )));
    if (rows.length <= 60) marks.push(Plot.dot(rows, {x: "x", y: "y", fill: paint(rows), r: 2.5}));
    marks.push(Plot.tip(rows, Plot.pointerX({x: "x", y: "y", z, stroke: z})));
    return {height: 300, marks, y: {grid: true, zero, nice: true}, x: {}};
  };

  const scatter = (figure, rows) => {
    const marks = [...rules(figure)];
    const last = Math.max(2, ...rows.map((row) => Math.max(row.x, row.y)));
    if (figure.ranks) {
      marks.push(Plot.line([[1, 1], [last, last]], {
        stroke: "currentColor", strokeOpacity: 0.45, strokeDasharray: "3 3",
      }));
    }
    const r = has(rows, "n") ? "n" : 2.5;
    marks.push(Plot.dot(rows, {
      x: "x", y: "y", r, fill: paint(rows), fillOpacity: 0.5, stroke: paint(rows),
      strokeWidth: 0.5, tip: true,
    }));
    const scale = figure.ranks
      ? {type: "log", domain: [0.85, last * 1.2], ticks: [1, 3, 10, 30, 100, 300, 1000, 3000, 10000]
          .filter((tick) => tick <= last), tickFormat: ",d", grid: true}
      : {grid: true, nice: true};
    return {height: 420, marks, x: scale, y: scale, r: {range: [1.4, 14]}};
  };

  const histogram = (figure, rows) => {
    const fill = paint(rows);
    return {
      height: 260,
      marks: [
        Plot.rectY(rows, {
          x1: "x", x2: "x2", y1: 0, y2: "y", fill, fillOpacity: 0.3, stroke: fill,
          strokeWidth: 1, insetLeft: 0.5, tip: true,
        }),
        Plot.ruleY([0]), ...rules(figure),
      ],
      x: {}, y: {grid: true, nice: true},
    };
  };

  const bars = (figure, rows, width) => {
    const short = (name) => clipped(name, width < PHONE ? WIDEST_NAME.phone : WIDEST_NAME.desk);
    const names = distinct(rows, "x"), fill = paint(rows);
    const series = has(rows, "series") ? distinct(rows, "series") : [];
    const apart = series.length > 1 && !figure.stacked;
    const place = apart ? {fy: "x", y: "series"} : {y: "x"};
    const widest = Math.max(...names.map((name) => String(short(name)).length));
    const named = {domain: names, label: null, tickFormat: short};
    const marks = [Plot.barX(rows, {...place, x: "y", fill, fillOpacity: 0.85, tip: true})];
    if (has(rows, "low")) {
      marks.push(Plot.ruleY(rows, {...place, x1: "low", x2: "high", strokeWidth: 1.5}));
    }
    marks.push(Plot.ruleX([0]));
    const count = apart ? names.length * (series.length + 0.6) : names.length;
    return {
      height: Math.max(2, count) * BAR + 60, marks, marginLeft: 14 + widest * LETTER,
      x: {grid: true, nice: true, label: told(figure), labelAnchor: "center", labelArrow: "none", percent: figure.percent},
      ...(apart
        ? {fy: {...named, padding: 0.15}, y: {axis: null, domain: series}}
        : {y: named}),
    };
  };

  const KINDS = {line, scatter, histogram, bars};

  const drawn = (figure, rows, width, described, isPaper) => {
    const {marks, x, y, ...options} = KINDS[figure.kind](figure, rows, width);
    const upright = figure.kind !== "bars";
    if (isPaper && upright) options.height *= PAPER.height;
    const plot = Plot.plot({
      width, marginLeft: 52, marginBottom: 46, marginTop: 22, marginRight: 16, ...options,
      style: {background: "transparent", fontSize: width < PHONE ? "11px" : "12px"},
      x: upright ? {label: figure.labels.x, labelAnchor: "center", labelArrow: "none", ...x} : x,
      y: upright
        ? {label: told(figure), labelArrow: "none", percent: figure.percent, ...y}
        : y,
      ...colours(rows), marks,
    });
    const legend = has(rows, "series") ? plot.legend("color") : null;
    // Plot names its groups, whose role may have no name; the caption tells the whole.
    for (const group of plot.querySelectorAll("[aria-label]")) group.removeAttribute("aria-label");
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-labelledby", described);
    return legend ? [legend, plot] : [plot];
  };

  const show = (chart) => {
    const figure = JSON.parse(chart.querySelector("script").textContent);
    const rows = rowsOf(figure), place = chart.querySelector(".drawing");
    const described = chart.querySelector("figcaption").id;
    let width = 0;
    const draw = (now, isPaper = false) => {
      if (!now || now === width) return; // not laid out, or nothing has changed
      width = now;
      place.replaceChildren(...drawn(figure, rows, width, described, isPaper));
    };
    const fit = () => draw(Math.floor(place.clientWidth));
    fit();
    new ResizeObserver(fit).observe(place);
    // Drawn anew for paper: made smaller, its words could not be read.
    const isAlone = !chart.matches(".chart ~ .chart, :has(~ .chart)");
    addEventListener("beforeprint", () => draw(isAlone ? PAPER.alone : PAPER.beside, true));
    addEventListener("afterprint", fit);
  };

  for (const chart of document.querySelectorAll("figure.chart")) show(chart);
})();
