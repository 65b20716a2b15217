// The page: what is selected in one input colours the other.
// It runs in one scope with the other scripts, which come before it.

const root = document.currentScript.closest(".ci-report");
const find = (selector, from = root) => from.querySelector(selector);
const data = JSON.parse(find("script.data").textContent);
const { match, clash, gamma } = data.colours;
const OTHER = { a: "b", b: "a" };

const state = {
  pair: 0, map: 0, sign: "both", opacity: data.colours.opacity, smooth: false, original: false,
  lines: false, pins: [],
  chosen: { a: null, b: null }, // numbers of words in order, or a box (x0, y0, x1, y1)
  passing: { a: null, b: null }, // the same, under the pointer or the keyboard's cursor
};
let panels = {};

// The reading: what the selections are worth, in numbers and words.

const COLOURS_MEAN = "Red raises the score, blue lowers it.";

// What to do on this page, and what its colours mean.
function instructions(map) {
  if (map.order === 1) {
    return `${COLOURS_MEAN} A first-order method gives one value for each part, whatever is `
      + "selected in the other input.";
  }
  const kinds = { a: map.a.kind, b: map.b.kind };
  if (kinds.a === "words" && kinds.b === "words") {
    return "Click a word: red words of the other text raise the score together with it, blue ones "
      + "lower it.";
  }
  const act = kinds.a === "grid" && kinds.b === "grid" ? "Drag a box: red regions of the other one"
    : "Click a word: red regions";
  return `${act} raise the score together with it, blue ones lower it.`;
}

// A part under the pointer counts where nothing is chosen.
const selected = (side) => state.chosen[side] ?? state.passing[side];

// With both chosen, the part under the pointer is read against the other choice.
function readSelection() {
  const selection = { a: selected("a"), b: selected("b") };
  for (const side of ["a", "b"]) {
    if (state.passing[side] && state.chosen[side]) selection[side] = state.passing[side];
  }
  return selection;
}

function reading() {
  const map = current(), selection = readSelection();
  const names = ["b", "a"].map((side) => describe(map[side], selection[side]));
  if (map.order === 1) {
    const sums = ["b", "a"].map((side) => {
      const values = map[`values_${side}`];
      return values && total(values, weights(map[side], selection[side], values.length));
    });
    const parts = names.map((name, i) => (sums[i] === null ? null : `${name} ${signed(sums[i], 4)}`));
    return { names: parts.filter(Boolean).join(", "), value: "",
      more: "A first-order method: one value for each part, whatever is selected in the other "
        + "input." };
  }
  const values = marginal(map, "a", selection.b);
  const value = total(values, weights(map.a, selection.a, values.length));
  const lines = selection.a && selection.b
    ? ["b", "a"].map((side) => alone(map, side, selection[side]))
    : ["a", "b"].filter((side) => !selection[side])
      .map((side) => spread(map, side, selection[OTHER[side]]));
  const sentences = lines.map((line) => line.charAt(0).toUpperCase() + line.slice(1));
  return { names: names.join(" × "), value: signed(value, 4), more: sentences.join(" ") };
}

// What a selection is worth with all of the other input.
function alone(map, side, selection) {
  const value = total(marginal(map, OTHER[side], selection));
  return `${describe(map[side], selection)} with all of the ${map[OTHER[side]].name}: `
    + `${signed(value)}.`;
}

// How a selection is spread over the parts of the other input.
function spread(map, side, selection) {
  const axis = map[side], units = byUnit(axis, marginal(map, side, selection));
  const plus = total(units.filter((value) => value > 0));
  const minus = total(units.filter((value) => value < 0));
  const strongest = units.reduce((best, value, i) =>
    (Math.abs(value) > Math.abs(units[best]) ? i : best), 0);
  const where = axis.kind === "grid" ? cellName(axis, strongest)
    : `“${axis.words[strongest]?.text}”`;
  if (!units.length) return "";
  return `In the ${axis.name}: red ${signed(plus)}, blue ${signed(minus)}, strongest at `
    + `${where} (${signed(units[strongest])}).`;
}

let speech = 0;
// The result in words for screen readers, once a movement has come to rest.
function say() {
  window.clearTimeout(speech);
  speech = window.setTimeout(() => {
    const { names, value, more } = reading();
    find(".live").textContent = `${names} ${value}. ${more}`;
  }, 200);
}

function pass(side, selection, always = false) {
  if (!always && String(selection) === String(state.passing[side])) return;
  state.passing[side] = selection;
  render();
}

function render() {
  const map = current();
  for (const side of ["a", "b"]) {
    panels[side].show(marginal(map, side, selected(OTHER[side])));
  }
  const { names, value, more } = reading();
  find(".reading .names").textContent = names;
  find(".reading .value").textContent = value;
  find(".reading .more").textContent = more;
  find(".clear").disabled = !state.chosen.a && !state.chosen.b;
  renderTiles();
  renderLines();
  writeAddress();
}

// Which pair and which of its maps is shown.

const cards = [...root.querySelectorAll(".card")];
const order = () => [...root.querySelectorAll(".card")].map((card) => cards.indexOf(card));

// The text stands beside the image, whichever of them comes first.
const sidesOf = (map) => (map.a.kind === "words" && map.b.kind === "grid" ? ["b", "a"]
  : ["a", "b"]);

function open(pair, keep = false, index = 0) {
  const before = keep && state.pair === pair ? panels.map : null;
  state.map = index;
  state.pair = pair;
  const map = current(), { start, label } = data.pairs[pair];
  const fits = (side) => before && before[side].kind === map[side].kind
    && (map[side].kind === "grid" || before[side].words.length === map[side].words.length);
  for (const side of ["a", "b"]) {
    if (!fits(side)) state.chosen[side] = before ? null : start[side];
    state.passing[side] = null;
  }
  panels.abort?.abort();
  const abort = new AbortController();
  panels = { map, abort, signal: abort.signal };
  for (const side of ["a", "b"]) {
    panels[side] = (map[side].kind === "grid" ? makeGrid : makeWords)(side, map[side]);
  }
  const sides = sidesOf(map);
  find(".slot.first").replaceChildren(panels[sides[0]].element);
  find(".slot.second").replaceChildren(panels[sides[1]].element);
  const grids = sides.filter((side) => map[side].kind === "grid").length;
  const viewer = find(".viewer");
  viewer.classList.toggle("stacked", grids === 0);
  viewer.classList.toggle("even", grids === 2);
  viewer.querySelectorAll(".for-grids").forEach((control) => { control.hidden = grids === 0; });
  find(".for-pictures").hidden = !sides.some((side) => Number.isInteger(map[side].picture));
  find(".for-pairs").hidden = map.order === 1;
  find(".about").textContent = map.about;
  find(".lead").textContent = instructions(map);
  // The numbers of this map, which the page holds for readers without scripts.
  const numbers = find(`.map[data-map="${state.map}"]`, cards[pair]).cloneNode(true);
  find(".slot.facts").replaceChildren(find(".facts", numbers));
  const strongest = find(".strongest", numbers);
  strongest.querySelectorAll("tr[data-a]").forEach(makeRow);
  find(".viewer > .slot.strongest").replaceChildren(strongest);
  find(".steps").hidden = data.pairs.length === 1;
  find(".label").textContent = label;
  find(".sheet").hidden = true;
  viewer.hidden = false;
  if (!keep || !before) makeTiles();
  render();
}

function makeRow(row) {
  const cell = find(".pair", row), button = make("button");
  button.type = "button";
  button.append(...cell.childNodes);
  cell.append(button);
  button.addEventListener("click", () => {
    for (const side of ["a", "b"]) {
      const axis = panels.map[side], unit = Number(row.dataset[side]);
      const box = () => (unit < 0 ? null : cellBox(axis, unit));
      state.chosen[side] = axis.kind === "grid" ? box() : [unit];
    }
    render();
    say();
  });
}

function showSheet() {
  find(".viewer").hidden = true;
  find(".sheet").hidden = false;
  find(".lead").textContent = `Click a pair to explore it. ${COLOURS_MEAN}`;
  writeAddress();
}

function step(by) {
  const places = order(), next = places.indexOf(state.pair) + by;
  open(places[(next + places.length) % places.length]);
  find(".label").focus();
}

const clear = () => {
  state.chosen = { a: null, b: null };
  state.passing = { a: null, b: null };
  render();
  say();
};

// Controls.

const controls = find(".controls");
controls.addEventListener("input", () => {
  const { sign, opacity, smooth, original, lines } = controls.elements;
  Object.assign(state, { sign: sign.value, opacity: Number(opacity.value) / 100,
    smooth: smooth.checked, original: original.checked, lines: lines.checked });
  root.classList.toggle("smooth", state.smooth);
  find(".viewer").classList.toggle("original", state.original);
  render();
  renderPins();
});
controls.reset(); // browsers remember what was set before a page was loaded again
root.querySelectorAll("form").forEach((form) => {
  form.addEventListener("submit", (event) => event.preventDefault());
});
find(".clear").addEventListener("click", clear);
find(".save").addEventListener("click", savePicture);
find(".pin").addEventListener("click", () => {
  const { names, value } = reading();
  state.pins.push({ pair: state.pair, map: state.map, chosen: { ...state.chosen }, names, value });
  renderPins();
  find(".live").textContent = `Pinned ${names}`;
});
find(".viewer").addEventListener("keydown", (event) => {
  if (event.key === "Escape") clear();
});
find(".back").addEventListener("click", () => {
  showSheet();
  find(".open", cards[state.pair]).focus();
});
find(".previous").addEventListener("click", () => step(-1));
find(".next").addEventListener("click", () => step(1));

const theme = find(".theme"), prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";
const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.hidden = false;
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
prefersDark.addEventListener("change", nameTheme);
nameTheme();

// Several pairs begin as a contact sheet, one pair at once, or as the address says.
if (data.pairs.length > 1) {
  const sorting = find(".sorting");
  sorting.hidden = false;
  sorting.reset();
  sorting.addEventListener("change", () => {
    const by = { given: () => 0, high: (x, y) => y.dataset.score - x.dataset.score,
      low: (x, y) => x.dataset.score - y.dataset.score };
    find(".cards").append(...[...cards].sort(by[sorting.elements.order.value]));
  });
  cards.forEach((card, index) => {
    find(".numbers", card).hidden = true;
    const button = make("button", "open");
    button.type = "button";
    button.setAttribute("aria-label", `Open ${data.pairs[index].label}, ${
      find(".score", card).textContent}`);
    button.addEventListener("click", () => { open(index); find(".label").focus(); });
    card.append(button);
  });
}
if (!readAddress()) {
  if (data.pairs.length === 1) open(0);
  else showSheet();
}
window.addEventListener("hashchange", readAddress);
new ResizeObserver(() => { if (!find(".viewer").hidden) renderLines(); }).observe(find(".columns"));

// Inside of a notebook's frame: as high as what it holds, and a compact page no higher than that.
let frame = null;
try { frame = window.frameElement; } catch { /* a frame of another site keeps its height */ }
if (frame?.hasAttribute("srcdoc")) {
  root.style.minHeight = "0";
  const most = root.classList.contains("compact") ? 500 : Infinity;
  new ResizeObserver(() => {
    frame.style.height = `${Math.min(root.offsetHeight + 2, most)}px`;
  }).observe(root);
}
