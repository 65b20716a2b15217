// Small pictures: the same selection by every method, and selections that were pinned.

function miniature(map, side, selection, limit) {
  const axis = map[side], values = marginal(map, side, selection);
  if (!values) return make("p", "sum-line", `no map of the ${axis.name}`);
  const units = byUnit(axis, values), most = limit || limitOf(map, units);
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
    input.addEventListener("change", () => { open(state.pair, true, index); });
    tile.append(input, make("div"), make("span", "", map.name));
    if (map.order === 1) tile.append(" ", make("span", "order", "first order"));
    return tile;
  }));
}

function renderPins() {
  find(".pins").hidden = state.pins.length === 0;
  const shown = state.pins.map((pin) => {
    const map = decoded(data.pairs[pin.pair].maps[pin.map]);
    const side = pin.chosen.a && !pin.chosen.b && map.b.kind === "words" ? "b" : gridSide(map);
    const values = marginal(map, side, pin.chosen[OTHER[side]]);
    return { pin, map, side, limit: values ? limitOf(map, byUnit(map[side], values)) : 0 };
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
      open(pin.pair, true, pin.map);
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
