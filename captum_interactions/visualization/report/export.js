// The pair as a picture to save: in the light colours, whatever the theme.

const SANS = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, sans-serif";
const SERIF = "Georgia, Iowan Old Style, Noto Serif, serif";
const WIDTH = 760, MARGIN = 28;

// Writes lines of text that fit the width from y on; returns where they end.
function writeText(pen, text, y, size, { colour = "#1d1d1f", family = SANS, weight = 400 } = {}) {
  pen.font = `${weight} ${size}px ${family}`;
  pen.fillStyle = colour;
  let line = "";
  for (const word of text.split(/\s+/)) {
    const longer = line ? `${line} ${word}` : word;
    if (line && pen.measureText(longer).width > WIDTH - 2 * MARGIN) {
      y += 1.4 * size;
      pen.fillText(line, MARGIN, y);
      line = word;
    } else line = longer;
  }
  y += 1.4 * size;
  pen.fillText(line, MARGIN, y);
  return y;
}

function loadPicture(index) {
  const probe = make("div", `picture picture-${index}`);
  root.append(probe);
  const source = getComputedStyle(probe).backgroundImage.slice(5, -2);
  probe.remove();
  const image = new Image();
  image.src = source;
  return image.decode().then(() => image);
}

async function drawGrid(pen, map, side, y) {
  const axis = map[side], values = marginal(map, side, readSelection()[OTHER[side]]);
  const shape = axis.labels ? 0.5 : axis.size[1] / axis.size[0];
  const top = y, width = Math.min(WIDTH - 2 * MARGIN, 430 / shape), height = width * shape;
  const place = ([x0, y0, x1, y1]) => [MARGIN + x0 / axis.size[0] * width,
    top + y0 / axis.size[1] * height, (x1 - x0) / axis.size[0] * width,
    (y1 - y0) / axis.size[1] * height];
  pen.fillStyle = "#f2f2f2";
  pen.fillRect(MARGIN, y, width, height);
  if (axis.picture !== null) {
    pen.drawImage(await loadPicture(axis.picture), MARGIN, y, width, height);
    if (!state.original) {
      pen.globalCompositeOperation = "saturation";
      pen.fillStyle = "#808080";
      pen.fillRect(MARGIN, y, width, height);
      pen.globalCompositeOperation = "source-over";
      pen.fillStyle = "rgba(255, 255, 255, 0.5)";
      pen.fillRect(MARGIN, y, width, height);
    }
  }
  const units = values && byUnit(axis, values), limit = values ? limitOf(map, units) : 1;
  if (values && !state.original) {
    const heat = make("canvas");
    paint(heat, axis, units, limit);
    pen.imageSmoothingEnabled = state.smooth;
    pen.drawImage(heat, ...place(axis.extent));
    pen.imageSmoothingEnabled = true;
  }
  if (state.chosen[side]) {
    for (const [colour, line] of [["#fff", 5], ["#111", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.strokeRect(...place(state.chosen[side]));
    }
  }
  const boxOf = (cell) => {
    const [x0, y0, w, h] = place(cellBox(axis, cell));
    return { x0, x1: x0 + w, y0, y1: y0 + h };
  };
  y += height;
  if (values && !state.original) {
    const bar = make("canvas");
    paintScale(bar);
    pen.drawImage(bar, MARGIN + 70, y + 10, width - 140, 8);
    pen.font = `12px ${SANS}`;
    pen.fillStyle = "#55555b";
    pen.fillText(signed(-limit, 2), MARGIN, y + 18);
    pen.fillText(signed(limit, 2), MARGIN + width - 60, y + 18);
    y += 22;
  }
  return { y, boxOf };
}

function drawWords(pen, map, side, y) {
  const axis = map[side], values = marginal(map, side, readSelection()[OTHER[side]]);
  const units = values && byUnit(axis, values), limit = values ? limitOf(map, units) : 1;
  const boxes = [], size = 21, top = y;
  let x = MARGIN;
  axis.words.forEach((word, i) => {
    pen.font = `${size}px ${SERIF}`;
    const width = Math.max(pen.measureText(word.text).width, values ? 46 : 0) + 10;
    if (x > MARGIN && x + width > WIDTH - MARGIN) {
      x = MARGIN;
      y += 56;
    }
    pen.fillStyle = "#fff"; // lines run behind words
    pen.fillRect(x, y, width, 48);
    const shown = values && visible(units[i]) ? units[i] : 0;
    pen.fillStyle = `rgba(${shown > 0 ? match : clash}, ${0.56 * Math.abs(shown) / limit})`;
    pen.fillRect(x, y, width, 48);
    if (state.chosen[side]?.includes(i)) {
      pen.strokeStyle = "#1d1d1f";
      pen.lineWidth = 2;
      pen.strokeRect(x, y, width, 48);
    }
    pen.fillStyle = "#1d1d1f";
    pen.textAlign = "center";
    pen.fillText(word.text, x + width / 2, y + 25);
    pen.font = `12px ${SANS}`;
    if (values) pen.fillText(brief(units[i], limit), x + width / 2, y + 42);
    pen.textAlign = "start";
    boxes.push({ x0: x, x1: x + width, y0: y, y1: y + 48, isWord: true });
    x += width + 8;
  });
  return { y: y + 48, boxOf: (i) => boxes[i], redraw: () => drawWords(pen, map, side, top) };
}

async function drawPicture() {
  const tall = make("canvas"), map = current(), { names, value, more } = reading();
  tall.width = 2 * WIDTH;
  tall.height = 2 * 3000;
  const pen = tall.getContext("2d");
  pen.scale(2, 2);
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, WIDTH, 3000);
  let y = writeText(pen, find("h1").textContent, MARGIN / 2, 21, { family: SERIF });
  y = writeText(pen, map.about, y + 4, 13, { colour: "#55555b" });
  y = writeText(pen, `${names} ${value}`, y + 8, 16, { weight: 600 });
  const placed = {};
  for (const side of sidesOf(map)) {
    y = writeText(pen, find(".part", panels[side].element).textContent, y + 8, 13,
      { colour: "#55555b" }) + 8;
    placed[side] = map[side].kind === "grid" ? await drawGrid(pen, map, side, y)
      : drawWords(pen, map, side, y);
    y = placed[side].y;
  }
  if (state.lines && map.order === 2) {
    const boxOf = (side, unit) => placed[side].boxOf(unit);
    for (const { path, value: size, strength } of linesBetween(map, readSelection(), boxOf)) {
      for (const [colour, extra] of [["#fff", 3], [`rgb(${size > 0 ? match : clash})`, 0]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = 1 + 3 * strength + extra;
        pen.setLineDash(size > 0 || extra ? [] : [7, 4]);
        pen.stroke(new Path2D(path));
      }
    }
    pen.setLineDash([]);
    for (const part of Object.values(placed)) part.redraw?.();
  }
  y = writeText(pen, more, y + 10, 13, { colour: "#55555b" });
  y = writeText(pen, COLOURS_MEAN, y + 4, 13, { colour: "#55555b" });
  const cut = make("canvas");
  cut.width = tall.width;
  cut.height = Math.min(2 * (y + MARGIN), tall.height);
  cut.getContext("2d").drawImage(tall, 0, 0);
  return cut;
}

async function savePicture() {
  const picture = await drawPicture();
  const blob = await new Promise((resolve) => { picture.toBlob(resolve); });
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = "explanation.png";
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
