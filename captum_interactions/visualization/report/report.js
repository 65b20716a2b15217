// One page, no globals: what is selected in one input colours the other.
(() => {
  "use strict";
  const root = document.currentScript.closest(".ci-report");
  const find = (selector, from = root) => from.querySelector(selector);
  const data = JSON.parse(find("script.data").textContent);
  const { match, clash, gamma } = data.colours;
  const OTHER = { a: "b", b: "a" };

  const state = {
    pair: 0, map: 0, sign: "both", opacity: data.colours.opacity, smooth: false, pins: [],
    chosen: { a: null, b: null }, // first and last word, or a box (x0, y0, x1, y1)
    passing: { a: null, b: null }, // the same, under the pointer or the keyboard's cursor
  };
  let panels = {};

  // Numbers: a map, and sums over selections.

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
      for (const word of axis.words.slice(selection[0], selection[1] + 1)) {
        for (const token of word.tokens) result[token] = 1;
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

  function signed(value, digits = 3) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size < 1e-4 || size >= 1e6 ? size.toExponential(digits - 1)
      : size.toPrecision(digits);
    return (value < 0 ? "−" : "+") + text.replace("e-", "e−").replace("e+", "e");
  }

  // With as many decimals as give the largest of its neighbours three digits.
  function brief(value, limit) {
    const decimals = Math.max(0, Math.min(8, 2 - Math.floor(Math.log10(limit))));
    const text = Math.abs(value).toFixed(decimals);
    return (Number(text) === 0 ? "" : value < 0 ? "−" : "+") + text;
  }

  // Names of what is selected.

  function cellName(axis, cell) {
    return axis.labels ? axis.labels[cell]
      : `patch ${Math.floor(cell / axis.grid[1])},${cell % axis.grid[1]}`;
  }

  function phrase(axis, [first, last]) {
    return axis.words.slice(first, last + 1)
      .map((word, i) => (i && !word.glued ? ` ${word.text}` : word.text)).join("");
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

  // Drawing.

  const visible = (value) => !(state.sign === "match" && value < 0)
    && !(state.sign === "clash" && value > 0);

  function paint(canvas, axis, values, limit) {
    const [rows, columns] = axis.grid;
    canvas.width = columns;
    canvas.height = rows;
    const pixels = canvas.getContext("2d").createImageData(columns, rows);
    values.forEach((value, i) => {
      const alpha = visible(value) ? state.opacity * (Math.abs(value) / limit) ** gamma : 0;
      pixels.data.set([...(value >= 0 ? match : clash), Math.round(255 * alpha)], 4 * i);
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  function paintScale(canvas) {
    const steps = Array.from({ length: 101 }, (_, i) => (i - 50) / 50);
    paint(canvas, { grid: [1, 101] }, steps, 1);
  }

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function place(element, axis, [x0, y0, x1, y1]) {
    const [width, height] = axis.size;
    element.style.left = `${100 * x0 / width}%`;
    element.style.top = `${100 * y0 / height}%`;
    element.style.width = `${100 * (x1 - x0) / width}%`;
    element.style.height = `${100 * (y1 - y0) / height}%`;
  }

  // A picture with a canvas over it, a pixel a cell.
  function makeStage(axis) {
    const stage = make("div", "stage");
    stage.style.aspectRatio = axis.labels ? "2 / 1" : `${axis.size[0]} / ${axis.size[1]}`;
    if (axis.picture !== null) {
      stage.append(make("div", `picture picture-${axis.picture}`));
      find(".picture", stage).style.setProperty("--wash", Math.min(1, 1.4 * state.opacity));
    }
    const canvas = make("canvas", "heat");
    place(canvas, axis, axis.extent);
    stage.append(canvas);
    return stage;
  }

  function colourWord(element, value, limit) {
    const shown = value !== 0 && visible(value);
    element.classList.toggle("match", shown && value > 0);
    element.classList.toggle("clash", shown && value < 0);
    element.style.setProperty("--w", shown ? Math.abs(value) / limit : 0);
  }

  const isIn = (index, selection) => Boolean(selection)
    && index >= selection[0] && index <= selection[1];
  const same = (one, two) => Boolean(one && two) && one.every((x, i) => x === two[i]);
  const range = (i, j) => [Math.min(i, j), Math.max(i, j)];

  // Panels: an element for one input, and a function that shows its values.

  function makeWords(side, axis) {
    const element = make("div", "panel");
    element.append(make("p", "part", `Words of the ${axis.name}`));
    const list = make("div", "words");
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-multiselectable", "true");
    list.setAttribute("aria-label", `Words of the ${axis.name}`);
    list.dir = "auto";
    const words = axis.words.map((word, index) => {
      const item = make("span", "word");
      item.setAttribute("role", "option");
      item.tabIndex = index === 0 ? 0 : -1;
      item.append(make("span", "text", word.text), make("span", "number"));
      list.append(item);
      return item;
    });
    if (axis.tail) list.append(make("span", "tail", axis.tail));
    const rest = make("p", "rest");
    element.append(list, rest);

    let anchor = 0, drag = null;
    const at = (event) => words.indexOf(
      document.elementFromPoint(event.clientX, event.clientY)?.closest(".word"));
    const choose = (selection) => { state.chosen[side] = selection; pass(side, null, true); };

    list.addEventListener("pointerdown", (event) => {
      const index = at(event);
      if (index < 0 || event.button) return;
      const before = state.chosen[side];
      if (!(event.shiftKey && before)) anchor = index;
      drag = { before, moved: event.shiftKey };
      choose(range(anchor, index));
    });
    list.addEventListener("pointermove", (event) => {
      const index = at(event);
      if (index < 0) return;
      if (drag) {
        const selection = range(anchor, index);
        if (same(selection, state.chosen[side])) return;
        drag.moved = true;
        choose(selection);
      } else if (event.pointerType === "mouse") pass(side, [index, index]);
    });
    const release = () => {
      if (!drag) return;
      // A click on the only selected word takes the selection back.
      if (!drag.moved && same(drag.before, state.chosen[side])) choose(null);
      drag = null;
      say();
    };
    window.addEventListener("pointerup", release, { signal: panels.signal });
    window.addEventListener("pointercancel", release, { signal: panels.signal });
    list.addEventListener("pointerleave", () => { if (!drag) pass(side, null); });

    list.addEventListener("keydown", (event) => {
      const index = words.indexOf(event.target);
      const back = getComputedStyle(list).direction === "rtl" ? 1 : -1;
      const steps = { ArrowLeft: back, ArrowRight: -back, ArrowUp: -1, ArrowDown: 1 };
      let next = index;
      if (event.key in steps) next = index + steps[event.key];
      else if (event.key === "Home") next = 0;
      else if (event.key === "End") next = words.length - 1;
      else if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        anchor = index;
        choose(same(state.chosen[side], [index, index]) ? null : [index, index]);
        say();
        return;
      } else return;
      event.preventDefault();
      next = Math.max(0, Math.min(words.length - 1, next));
      words.forEach((word, i) => { word.tabIndex = i === next ? 0 : -1; });
      words[next].focus();
      if (event.shiftKey) {
        if (!state.chosen[side]) anchor = index;
        choose(range(anchor, next));
        say();
      } else pass(side, [next, next]);
    });
    list.addEventListener("focusout", () => pass(side, null));

    return {
      element,
      show(values) {
        const units = values && byUnit(axis, values), limit = (values && largest(units)) || 1;
        words.forEach((word, i) => {
          colourWord(word, values ? units[i] : 0, limit);
          word.lastChild.textContent = values ? brief(units[i], limit) : "";
          if (values) word.title = signed(units[i], 4);
          word.setAttribute("aria-selected", isIn(i, state.chosen[side]));
          word.classList.toggle("chosen", isIn(i, state.chosen[side]));
          word.classList.toggle("passing", isIn(i, state.passing[side]));
        });
        rest.textContent = restOf(axis, values);
      },
    };
  }

  function restOf(axis, values) {
    if (!values) return `This method has no map of the ${axis.name}.`;
    const rest = outside(axis, values);
    return rest === 0 ? "" : `Special tokens ${signed(rest)}`;
  }

  function makeGrid(side, axis) {
    const element = make("div", "panel");
    const stage = makeStage(axis), canvas = find(".heat", stage);
    const [rows, columns] = axis.grid, [width, height] = axis.size;
    const kind = axis.labels ? "cells" : "patches";
    element.append(make("p", "part", `The ${axis.name}, ${rows} × ${columns} ${kind}`), stage);
    stage.tabIndex = 0;
    stage.setAttribute("role", "application");
    stage.setAttribute("aria-roledescription", "grid of parts");
    stage.setAttribute("aria-label", `The ${axis.name}, ${rows} by ${columns} ${kind}. Arrow keys `
      + "move, Shift with arrows extends, Enter keeps, Escape clears.");
    const boxes = ["chosen", "passing"].map((name) => {
      const box = make("div", `box ${name}`);
      stage.append(box);
      return box;
    });
    const scale = make("div", "scale"), bar = make("canvas");
    scale.append(make("span", "low"), bar, make("span", "high"));
    const rest = make("p", "rest");
    element.append(scale, rest);

    const point = (event) => {
      const box = stage.getBoundingClientRect();
      const inside = (x, limit) => Math.max(0, Math.min(limit, x));
      return [inside((event.clientX - box.left) / box.width * width, width),
        inside((event.clientY - box.top) / box.height * height, height)];
    };
    const cellAt = ([x, y]) => {
      const [x0, y0, x1, y1] = axis.extent;
      const column = Math.floor((x - x0) / (x1 - x0) * columns);
      const row = Math.floor((y - y0) / (y1 - y0) * rows);
      const isInside = column >= 0 && row >= 0 && column < columns && row < rows;
      return isInside ? row * columns + column : -1;
    };
    const choose = (selection) => { state.chosen[side] = selection; pass(side, null, true); };
    const passCell = (cell) => pass(side, cell < 0 ? null : cellBox(axis, cell));

    let start = null;
    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      stage.setPointerCapture(event.pointerId);
      start = { at: point(event), x: event.clientX, y: event.clientY,
        before: state.chosen[side], moved: false };
    });
    stage.addEventListener("pointermove", (event) => {
      if (!start) {
        if (event.pointerType === "mouse") passCell(cellAt(point(event)));
        return;
      }
      const distance = Math.hypot(event.clientX - start.x, event.clientY - start.y);
      if (!start.moved && distance < 4) return;
      start.moved = true;
      const [x, y] = point(event), [u, v] = start.at;
      // Whole pixels of the original (whole cells of a sound), so that a box can be typed again.
      const box = [Math.floor(Math.min(x, u)), Math.floor(Math.min(y, v)),
        Math.ceil(Math.max(x, u)), Math.ceil(Math.max(y, v))];
      if (box[0] < box[2] && box[1] < box[3]) choose(box);
    });
    stage.addEventListener("pointerup", (event) => {
      if (start && !start.moved) {
        const cell = cellAt(point(event));
        const box = cell < 0 ? null : cellBox(axis, cell);
        choose(same(box, start.before) ? null : box);
      }
      if (start) say();
      start = null;
    });
    stage.addEventListener("pointercancel", () => { start = null; });
    stage.addEventListener("pointerleave", () => { if (!start) pass(side, null); });

    let cursor = null, corner = null; // [row, column]
    const between = () => {
      const one = cellBox(axis, corner[0] * columns + corner[1]);
      const two = cellBox(axis, cursor[0] * columns + cursor[1]);
      return [Math.min(one[0], two[0]), Math.min(one[1], two[1]),
        Math.max(one[2], two[2]), Math.max(one[3], two[3])];
    };
    stage.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      if (event.key in steps) {
        event.preventDefault();
        if (!cursor) cursor = corner = [Math.floor(rows / 2), Math.floor(columns / 2)];
        else {
          cursor = [Math.max(0, Math.min(rows - 1, cursor[0] + steps[event.key][0])),
            Math.max(0, Math.min(columns - 1, cursor[1] + steps[event.key][1]))];
        }
        if (!event.shiftKey) corner = cursor;
        pass(side, between());
        say();
      } else if ((event.key === "Enter" || event.key === " ") && cursor) {
        event.preventDefault();
        choose(same(state.chosen[side], between()) ? null : between());
        say();
      }
    });
    stage.addEventListener("blur", () => pass(side, null));

    return {
      element,
      show(values) {
        const units = values && byUnit(axis, values), limit = (values && largest(units)) || 1;
        paint(canvas, axis, values ? units : axis.cells.map(() => 0), limit);
        paintScale(bar);
        find(".low", scale).textContent = values ? signed(-limit, 2) : "";
        find(".high", scale).textContent = values ? signed(limit, 2) : "";
        find(".picture", stage)?.style.setProperty("--wash", Math.min(1, 1.4 * state.opacity));
        [state.chosen[side], state.passing[side]].forEach((selection, i) => {
          boxes[i].hidden = !selection;
          if (selection) place(boxes[i], axis, selection);
        });
        rest.textContent = restOf(axis, values);
      },
    };
  }

  // The reading: what the selections are worth, in numbers and words.

  // A part under the pointer counts where nothing is chosen.
  const selected = (side) => state.chosen[side] ?? state.passing[side];

  function reading() {
    const map = current(), selection = { a: selected("a"), b: selected("b") };
    // With both chosen, the part under the pointer is read against the other choice.
    for (const side of ["a", "b"]) {
      if (state.passing[side] && state.chosen[side]) selection[side] = state.passing[side];
    }
    const names = ["b", "a"].map((side) => describe(map[side], selection[side]));
    if (map.order === 1) {
      const sums = ["b", "a"].map((side) => {
        const values = map[`values_${side}`];
        return values && total(values, weights(map[side], selection[side], values.length));
      });
      const parts = names.map((name, i) => (sums[i] === null ? null : `${name} ${signed(sums[i], 4)}`));
      return { names: parts.filter(Boolean).join(", "), value: "",
        more: "A first-order method: one value a part, whatever is selected in the other input." };
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
    return `In the ${axis.name}: matches ${signed(plus)}, clashes ${signed(minus)}, strongest at `
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
  }

  // Small pictures: the same selection by every method, and selections that were pinned.

  function miniature(map, side, selection, limit) {
    const axis = map[side], values = marginal(map, side, selection);
    if (!values) return make("p", "sum-line", `no map of the ${axis.name}`);
    const units = byUnit(axis, values), most = limit || largest(units) || 1;
    if (axis.kind === "grid") {
      const stage = makeStage(axis);
      paint(find(".heat", stage), axis, units, most);
      return stage;
    }
    const line = make("p", "line");
    line.dir = "auto";
    axis.words.forEach((word, i) => {
      if (i && !word.glued) line.append(" ");
      const item = make("span", "word", word.text);
      colourWord(item, units[i], most);
      line.append(item);
    });
    return line;
  }

  const gridSide = (map) => ["a", "b"].find((side) => map[side].kind === "grid") ?? "b";

  function renderTiles() {
    find(".tiles").querySelectorAll(".tile").forEach((tile, index) => {
      const map = decoded(data.pairs[state.pair].maps[index]), side = gridSide(map);
      tile.replaceChild(miniature(map, side, selected(OTHER[side])), tile.children[1]);
      find("input", tile).checked = index === state.map;
    });
  }

  function makeTiles() {
    const { maps } = data.pairs[state.pair];
    find(".methods").hidden = maps.length < 2;
    find(".tiles").replaceChildren(...(maps.length < 2 ? [] : maps).map((map, index) => {
      const tile = make("label", "tile"), input = make("input");
      input.type = "radio";
      input.name = "method";
      input.addEventListener("change", () => { state.map = index; open(state.pair, true); });
      tile.append(input, make("div"), make("span", "", map.name));
      return tile;
    }));
  }

  function renderPins() {
    find(".pins").hidden = state.pins.length === 0;
    const shown = state.pins.map((pin) => {
      const map = decoded(data.pairs[pin.pair].maps[pin.map]);
      const side = pin.chosen.a && !pin.chosen.b && map.b.kind === "words" ? "b" : gridSide(map);
      const values = marginal(map, side, pin.chosen[OTHER[side]]);
      return { pin, map, side, limit: values ? largest(byUnit(map[side], values)) : 0 };
    });
    find(".pins ul").replaceChildren(...shown.map(({ pin, map, side }, index) => {
      const item = make("li"), acts = make("p", "acts");
      const limit = Math.max(...shown
        .filter((other) => other.map.name === map.name && other.side === side)
        .map((other) => other.limit));
      item.append(miniature(map, side, pin.chosen[OTHER[side]], limit));
      item.append(make("span", "", pin.names), make("span", "sum-line", pin.value));
      if (data.pairs.length > 1) item.append(make("span", "sum-line", data.pairs[pin.pair].label));
      if (data.pairs[pin.pair].maps.length > 1) item.append(make("span", "sum-line", map.name));
      const show = make("button", "show", "Show"), remove = make("button", "remove quiet", "Remove");
      show.type = remove.type = "button";
      show.setAttribute("aria-label", `Show ${pin.names}`);
      remove.setAttribute("aria-label", `Remove ${pin.names}`);
      show.addEventListener("click", () => {
        state.map = pin.map;
        open(pin.pair, true);
        state.chosen = { ...pin.chosen };
        render();
        say();
      });
      remove.addEventListener("click", () => {
        state.pins.splice(index, 1);
        renderPins();
        find(".pin").focus();
      });
      acts.append(show, " ", remove);
      item.append(acts);
      return item;
    }));
  }

  // Which pair and which of its maps is shown.

  const cards = [...root.querySelectorAll(".card")];
  const order = () => [...root.querySelectorAll(".card")].map((card) => cards.indexOf(card));

  function open(pair, keep = false) {
    const before = keep && state.pair === pair ? panels.map : null;
    if (!keep) state.map = 0;
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
    const sides = map.a.kind === "words" && map.b.kind === "grid" ? ["b", "a"] : ["a", "b"];
    find(".slot.first").replaceChildren(panels[sides[0]].element);
    find(".slot.second").replaceChildren(panels[sides[1]].element);
    const grids = sides.filter((side) => map[side].kind === "grid").length;
    const viewer = find(".viewer");
    viewer.classList.toggle("stacked", grids === 0);
    viewer.classList.toggle("even", grids === 2);
    viewer.querySelectorAll(".for-grids").forEach((control) => { control.hidden = grids === 0; });
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
        state.chosen[side] = axis.kind === "grid" ? box() : [unit, unit];
      }
      render();
      say();
    });
  }

  function close() {
    find(".viewer").hidden = true;
    find(".sheet").hidden = false;
    find(".open", cards[state.pair]).focus();
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
    state.sign = controls.elements.sign.value;
    state.opacity = Number(controls.elements.opacity.value) / 100;
    state.smooth = controls.elements.smooth.checked;
    root.classList.toggle("smooth", state.smooth);
    render();
    renderPins();
  });
  controls.reset(); // browsers remember what was set before a page was loaded again
  root.querySelectorAll("form").forEach((form) => {
    form.addEventListener("submit", (event) => event.preventDefault());
  });
  find(".clear").addEventListener("click", clear);
  find(".pin").addEventListener("click", () => {
    const { names, value } = reading();
    state.pins.push({ pair: state.pair, map: state.map, chosen: { ...state.chosen }, names, value });
    renderPins();
    find(".live").textContent = `Pinned ${names}`;
  });
  find(".viewer").addEventListener("keydown", (event) => {
    if (event.key === "Escape") clear();
  });
  find(".back").addEventListener("click", close);
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

  // Several pairs begin as a contact sheet, one pair at once.
  if (data.pairs.length === 1) open(0);
  else {
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

  // Inside of a notebook's frame: as high as what it holds.
  let frame = null;
  try { frame = window.frameElement; } catch { /* a frame of another site keeps its height */ }
  if (frame?.hasAttribute("srcdoc")) {
    root.style.minHeight = "0";
    new ResizeObserver(() => { frame.style.height = `${root.offsetHeight + 2}px`; }).observe(root);
  }
})();
