// What one input looks like: words, or a grid over a picture, which can be selected.

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
  const ratio = axis.labels ? 2 : axis.size[0] / axis.size[1];
  stage.style.aspectRatio = ratio;
  stage.style.setProperty("--ratio", ratio);
  if (axis.picture !== null) {
    stage.append(make("div", `picture picture-${axis.picture}`));
    find(".picture", stage).style.setProperty("--wash", Math.min(1, 1.4 * state.opacity));
  }
  const canvas = make("canvas", "heat");
  place(canvas, axis, axis.extent);
  stage.append(canvas);
  if (axis.cropped) {
    const cropped = make("div", "cropped");
    cropped.title = "The model does not see this part: its processor crops images";
    cropped.style.clipPath = axis.cropped;
    stage.append(cropped);
  }
  return stage;
}

function colourWord(element, value, limit) {
  const shown = value !== 0 && visible(value);
  element.classList.toggle("match", shown && value > 0);
  element.classList.toggle("clash", shown && value < 0);
  element.style.setProperty("--w", shown ? Math.abs(value) / limit : 0);
}

const same = (one, two) => Boolean(one && two) && String(one) === String(two);
const range = (i, j) => Array.from({ length: Math.abs(i - j) + 1 }, (_, k) => Math.min(i, j) + k);

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
  const adds = (event) => event.ctrlKey || event.metaKey;
  // Adds a word to those that are selected, or takes it back.
  const toggle = (index) => {
    const before = state.chosen[side] ?? [], others = before.filter((i) => i !== index);
    const after = others.length < before.length ? others : [...before, index];
    anchor = index;
    choose(after.length ? after.sort((x, y) => x - y) : null);
  };

  list.addEventListener("pointerdown", (event) => {
    const index = at(event);
    if (index < 0 || event.button) return;
    if (adds(event)) {
      toggle(index);
      say();
      return;
    }
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
    } else if (event.pointerType === "mouse") pass(side, [index]);
  });
  // On a Mac, a click with Ctrl would open a menu.
  list.addEventListener("contextmenu", (event) => { if (event.ctrlKey) event.preventDefault(); });
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
      const before = state.chosen[side] ?? [];
      if (adds(event)) toggle(index);
      else if (same(before, [index])) choose(null);
      else if (before.length > 1 && before.includes(index)) choose(before); // a phrase stays
      else {
        anchor = index;
        choose([index]);
      }
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
    } else pass(side, [next]);
  });
  list.addEventListener("focusout", () => pass(side, null));

  return {
    element,
    boxOf: (index) => words[index].getBoundingClientRect(),
    show(values) {
      const units = values && byUnit(axis, values);
      const limit = values ? limitOf(current(), units) : 1;
      words.forEach((word, i) => {
        colourWord(word, values ? units[i] : 0, limit);
        word.lastChild.textContent = values ? brief(units[i], limit) : "";
        if (values) word.title = signed(units[i], 4);
        word.setAttribute("aria-selected", Boolean(state.chosen[side]?.includes(i)));
        word.classList.toggle("chosen", Boolean(state.chosen[side]?.includes(i)));
        word.classList.toggle("passing", Boolean(state.passing[side]?.includes(i)));
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
    + "move, Shift with arrows extends, Enter selects, Escape clears.");
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
    boxOf: (cell) => {
      const box = stage.getBoundingClientRect(), [x0, y0, x1, y1] = cellBox(axis, cell);
      const x = (at) => box.left + at / width * box.width;
      const y = (at) => box.top + at / height * box.height;
      return { left: x(x0), right: x(x1), top: y(y0), bottom: y(y1) };
    },
    show(values) {
      const units = values && byUnit(axis, values);
      const limit = values ? limitOf(current(), units) : 1;
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
