// Lines between the parts of both inputs whose pairs are the strongest.

const LINES = 8;

const tokensOf = (axis) => (axis.kind === "words" ? axis.words.map((word) => word.tokens)
  : axis.cells.map((token) => (token < 0 ? [] : [token])));

// The parts of a side that may have lines: those selected, or all.
function partsOf(axis, selection) {
  const tokens = tokensOf(axis), all = tokens.map((_, unit) => unit);
  if (!selection) return all;
  if (axis.kind === "words") return selection;
  return all.filter((cell) => {
    const box = cellBox(axis, cell), area = (box[2] - box[0]) * (box[3] - box[1]);
    return overlap(box[0], box[2], selection[0], selection[2])
      * overlap(box[1], box[3], selection[1], selection[3]) >= area / 2;
  });
}

// Part of a, part of b and value, strongest first.
function strongestPairs(map, selection) {
  const tokens = { a: tokensOf(map.a), b: tokensOf(map.b) }, found = [];
  for (const i of partsOf(map.a, selection.a)) {
    for (const j of partsOf(map.b, selection.b)) {
      let value = 0;
      for (const row of tokens.a[i]) {
        for (const column of tokens.b[j]) value += map.values[row * map.tokens[1] + column];
      }
      if (visible(value) && Math.abs(value) > map.rounding) found.push([i, j, value]);
    }
  }
  return found.sort((x, y) => Math.abs(y[2]) - Math.abs(x[2])).slice(0, LINES);
}

// A curve from the middle of a cell, or the border of a word, to another.
function curve(from, to) {
  const middle = (box) => [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2];
  const end = (box, towards) => {
    const [x, y] = middle(box);
    if (!box.isWord) return [x, y];
    const across = towards[0] > box.x1 || towards[0] < box.x0;
    return across ? [towards[0] > x ? box.x1 : box.x0, y] : [x, towards[1] > y ? box.y1 : box.y0];
  };
  const [x0, y0] = end(from, middle(to)), [x1, y1] = end(to, middle(from));
  const half = [(x0 + x1) / 2, (y0 + y1) / 2], isWide = Math.abs(x1 - x0) > 0.4 * Math.abs(y1 - y0);
  const bend = isWide ? `${half[0]} ${y0} ${half[0]} ${y1}` : `${x0} ${half[1]} ${x1} ${half[1]}`;
  return { path: `M${x0} ${y0}C${bend} ${x1} ${y1}`, ends: [[x0, y0], [x1, y1]] };
}

// Curves of the strongest pairs, given where the parts of each side lie.
function linesBetween(map, selection, boxOf) {
  const pairs = strongestPairs(map, selection), most = largest(pairs.map((pair) => pair[2]));
  return pairs.map(([i, j, value]) => ({
    ...curve(boxOf("a", i), boxOf("b", j)), value, strength: Math.abs(value) / most, pair: [i, j],
  }));
}

function renderLines() {
  const svg = find("svg.lines"), map = current();
  const isShown = state.lines && map.order === 2;
  svg.replaceChildren();
  find(".viewer").classList.toggle("lined", isShown);
  if (!isShown) return;
  const origin = svg.getBoundingClientRect();
  const boxOf = (side, unit) => {
    const box = panels[side].boxOf(unit);
    return { x0: box.left - origin.left, x1: box.right - origin.left, y0: box.top - origin.top,
      y1: box.bottom - origin.top, isWord: map[side].kind === "words" };
  };
  svg.innerHTML = linesBetween(map, readSelection(), boxOf)
    .map(({ path, ends, value, strength }) => {
      const sign = value > 0 ? "match" : "clash", width = 1 + 3 * strength;
      const dots = ends.map(([x, y]) => `<circle class="${sign}" cx="${x}" cy="${y}" r="3"/>`);
      return `<path class="halo" d="${path}" stroke-width="${width + 4}"/>`
        + `<path class="${sign}" d="${path}" stroke-width="${width}"/>${dots.join("")}`;
    }).join("");
}
