// Sums over selections of a map, and the names of what is selected.

const floats = (text) => {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
};

const decoded = (map) => {
  for (const key of ["values", "values_a", "values_b"]) {
    if (typeof map[key] === "string") map[key] = floats(map[key]);
  }
  return map;
};

const current = () => decoded(data.pairs[state.pair].maps[state.map]);
const overlap = (low, high, from, to) => Math.max(0, Math.min(high, to) - Math.max(low, from));

function cellBox(axis, cell) {
  const [rows, columns] = axis.grid, [x0, y0, x1, y1] = axis.extent;
  const width = (x1 - x0) / columns, height = (y1 - y0) / rows;
  const row = Math.floor(cell / columns), column = cell % columns;
  return [x0 + column * width, y0 + row * height,
    x0 + (column + 1) * width, y0 + (row + 1) * height];
}

// One weight a token: the share of a cell that a box covers, 1 for the tokens of words.
function weights(axis, selection, length) {
  if (!selection) return new Float64Array(length).fill(1);
  const result = new Float64Array(length);
  if (axis.kind === "words") {
    for (const index of selection) {
      for (const token of axis.words[index].tokens) result[token] = 1;
    }
    return result;
  }
  axis.cells.forEach((token, cell) => {
    const [x0, y0, x1, y1] = cellBox(axis, cell);
    const share = overlap(x0, x1, selection[0], selection[2]) / (x1 - x0)
      * overlap(y0, y1, selection[1], selection[3]) / (y1 - y0);
    if (token >= 0) result[token] = share < 1e-9 ? 0 : share;
  });
  return result;
}

// One value a token of a side, for a selection of the other side; null if there are none.
function marginal(map, side, selection) {
  if (map.order === 1) return map[`values_${side}`];
  const [rows, columns] = map.tokens;
  const other = weights(map[OTHER[side]], selection, side === "a" ? columns : rows);
  const result = new Float64Array(side === "a" ? rows : columns);
  for (let i = 0; i < rows; i += 1) {
    for (let j = 0; j < columns; j += 1) {
      const value = map.values[i * columns + j];
      if (side === "a") result[i] += value * other[j];
      else result[j] += value * other[i];
    }
  }
  return result;
}

const total = (values, by) => values.reduce((sum, value, i) => sum + value * (by ? by[i] : 1), 0);

// One value a word or a cell.
function byUnit(axis, values) {
  if (axis.kind === "grid") return axis.cells.map((token) => (token < 0 ? 0 : values[token]));
  return axis.words.map((word) => word.tokens.reduce((sum, token) => sum + values[token], 0));
}

// What lies in no word and no cell: start, end and class tokens.
function outside(axis, values) {
  const inside = new Set(axis.kind === "grid" ? axis.cells
    : axis.words.flatMap((word) => word.tokens));
  return values.reduce((sum, value, token) => (inside.has(token) ? sum : sum + value), 0);
}

const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// The end of the scale: values that are no larger than rounding errors get no colour.
function limitOf(map, values) {
  const most = largest(values);
  return most > map.rounding ? most : map.scale;
}

function signed(value, digits = 3) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size < 1e-4 || size >= 1e6 ? size.toExponential(digits - 1)
    : size.toPrecision(digits);
  return (value < 0 ? "−" : "+") + text.replace("e-", "e−").replace("e+", "e");
}

// With as many decimals as give the largest of its neighbours two digits; at most seven letters.
function brief(value, limit) {
  const decimals = Math.max(0, 1 - Math.floor(Math.log10(limit))), size = Math.abs(value);
  const text = decimals > 4 ? size.toExponential(0).replace("e-", "e−") : size.toFixed(decimals);
  return (size === 0 || Number(text) === 0 ? "" : value < 0 ? "−" : "+") + text;
}

// Names of what is selected.

function cellName(axis, cell) {
  return axis.labels ? axis.labels[cell]
    : `patch ${Math.floor(cell / axis.grid[1])},${cell % axis.grid[1]}`;
}

// Words that follow each other are one phrase; others stand beside it.
function phrase(axis, selection) {
  return selection.map((index, i) => {
    const word = axis.words[index];
    if (!i) return word.text;
    if (selection[i - 1] !== index - 1) return `” + “${word.text}`;
    return word.glued ? word.text : ` ${word.text}`;
  }).join("");
}

function describe(axis, selection) {
  if (!selection) return `the ${axis.name}`;
  if (axis.kind === "words") return `“${phrase(axis, selection)}”`;
  const covered = axis.cells.map((_, cell) => cellBox(axis, cell));
  const single = covered.findIndex((box) => box.every((x, i) => Math.abs(x - selection[i]) < 1e-6));
  if (single >= 0) return cellName(axis, single);
  return axis.labels ? soundName(axis, selection) : `box (${selection.map(neat).join(", ")})`;
}

const neat = (x) => Number(x.toFixed(2));

function soundName(axis, [x0, y0, x1, y1]) {
  const [rows, columns] = axis.grid;
  const first = axis.labels[x0].split("–")[0];
  const last = axis.labels[Math.min(x1, columns) - 1].split("–")[1].split(",")[0];
  const bands = rows > 1 ? `, bands ${rows - y1}–${rows - 1 - y0}` : "";
  return `${first}–${last}${bands}`;
}
