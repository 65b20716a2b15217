// What is selected, in the address of the page: a link to it opens the page as it is.

// A page in a frame has no address of its own.
const hasAddress = window.parent === window;

function writeAddress() {
  if (!hasAddress) return;
  const parts = [];
  if (data.pairs.length > 1) parts.push(`pair=${state.pair + 1}`);
  if (state.map) parts.push(`method=${state.map + 1}`);
  for (const side of ["a", "b"]) {
    if (state.chosen[side]) parts.push(`${side}=${state.chosen[side].map(neat).join(",")}`);
  }
  const isOpen = !find(".viewer").hidden;
  setAddress(isOpen && parts.length ? `#${parts.join("&")}` : "");
}

function setAddress(hash) {
  if (hash === window.location.hash) return;
  const bare = window.location.href.split("#")[0];
  window.history.replaceState(null, "", hash || bare);
}

// The selection that an address gives for one input; null if it gives none that there is.
function selectionFrom(text, axis) {
  const numbers = (text ?? "").split(",").map(Number);
  if (!text || !numbers.every(Number.isFinite)) return null;
  if (axis.kind === "words") {
    const isWord = (n) => Number.isInteger(n) && n >= 0 && n < axis.words.length;
    return numbers.every(isWord) ? [...new Set(numbers)].sort((x, y) => x - y) : null;
  }
  const [x0, y0, x1, y1] = numbers, [width, height] = axis.size;
  const isBox = numbers.length === 4 && 0 <= x0 && x0 < x1 && x1 <= width && 0 <= y0 && y0 < y1
    && y1 <= height;
  return isBox ? numbers : null;
}

// Opens what the address names; false if it names nothing.
function readAddress() {
  if (!hasAddress || window.location.hash.length < 2) return false;
  const given = new URLSearchParams(window.location.hash.slice(1));
  const pick = (name, list) => Math.min(Math.max(Number(given.get(name)) || 1, 1), list.length) - 1;
  const pair = pick("pair", data.pairs), map = pick("method", data.pairs[pair].maps);
  if (!["pair", "method", "a", "b"].some((name) => given.has(name))) return false;
  open(pair, false, map);
  for (const side of ["a", "b"]) {
    state.chosen[side] = selectionFrom(given.get(side), panels.map[side]);
  }
  render();
  return true;
}
