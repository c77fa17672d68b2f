// The board of tokens: a part of the first image, where another code can be put in the place of each.

/** Show the board, or take its section away where there is one code only. */
function showTokens(codebook) {
  if (codebook.board.choices[0].length) new TokenBoard(codebook);
  else byId("tokens").remove();
}

class TokenBoard {
  constructor(codebook) {
    this.codebook = codebook;
    this.board = codebook.board;
    this.side = this.board.side;
    this.current = [...this.board.codes]; // the code at each position
    this.edits = new Map(); // position → which of its choices; in the order in which they were made
    this.history = []; // [position, the choice before], for the button that undoes
    this.chosen = Math.floor(this.side / 2) * (this.side + 1);
    this.canvas = new BoardCanvas(byId("board").querySelector("canvas"), this.board);
    this.buildSquares();
    this.listen();
    this.showWhere();
    this.label();
    this.choose(this.chosen);
  }

  buildSquares() {
    this.overlay = byId("board").querySelector(".cells");
    this.overlay.style.gridTemplate = `repeat(${this.side}, 1fr) / repeat(${this.side}, 1fr)`;
    this.squares = this.current.map((_, position) => {
      const square = element("button", { type: "button", role: "gridcell" });
      square.addEventListener("pointerenter", () => this.light(position));
      square.addEventListener("click", () => {
        this.choose(position);
        byId("palette").querySelector("button")?.focus({ preventScroll: true });
      });
      return square;
    });
    for (let start = 0; start < this.squares.length; start += this.side) {
      this.overlay.append(element("div", { role: "row" }, ...this.squares.slice(start, start + this.side)));
    }
    walkByKeys(this.squares, () => this.side, (position) => {
      this.choose(position);
      this.light(position);
    });
  }

  listen() {
    this.overlay.addEventListener("pointerleave", () => this.light(null));
    this.overlay.addEventListener("focusout", () => this.light(null));
    byId("undo").addEventListener("click", () => {
      const [position, choice] = this.history.pop();
      this.put(position, choice);
    });
    byId("reset").addEventListener("click", () => {
      this.history.length = 0;
      [...this.edits.keys()].forEach((position) => this.put(position, null));
    });
    byId("lines").addEventListener("change", (event) => this.overlay.classList.toggle("lines", event.target.checked));
  }

  /** Frame this part in a small picture of the whole image. */
  showWhere() {
    const [grid] = this.codebook.grids;
    const [high, wide] = [grid.length, grid[0].length];
    const { left, top } = this.board;
    const frame = element("i");
    const shares = { left: left / wide, top: top / high, width: this.side / wide, height: this.side / high };
    for (const [name, share] of Object.entries(shares)) frame.style[name] = `${100 * share}%`;
    const { src } = document.querySelector(".gallery img");
    byId("where").append(element("img", { src, alt: "Where in the image this part lies" }), frame);
  }

  /** Light the positions that hold the same code as this one; null for none. */
  light(position) {
    const code = position === null ? null : this.current[position];
    this.overlay.classList.toggle("lit", position !== null);
    this.squares.forEach((square, i) => square.classList.toggle("same", this.current[i] === code));
    this.describe(position ?? this.chosen);
  }

  describe(position) {
    const code = this.current[position];
    const times = this.current.filter((other) => other === code).length;
    const [row, column] = [Math.floor(position / this.side) + 1, (position % this.side) + 1];
    byId("token").replaceChildren(
      element("b", { textContent: `Code ${this.codebook.codes.index[code]}` }),
      ` at row ${row}, column ${column}; ${counted(times, "time")} in this part, ` +
        `${this.codebook.share(code)} of all positions.`,
    );
  }

  /** Offer what can be put at a position. */
  choose(position) {
    this.squares[this.chosen].classList.remove("here");
    this.chosen = position;
    this.squares[position].classList.add("here");
    const choices = this.board.choices[position].map((code, choice) => [code, choice]);
    const [similar, frequent] = [choices.slice(0, this.board.similar), choices.slice(this.board.similar)];
    byId("palette").replaceChildren(
      ...this.offer(position, "Its own code", [[this.board.codes[position], null]]),
      ...this.offer(position, "Most like it", similar),
      ...(frequent.length ? this.offer(position, "Most frequent", frequent) : []),
    );
    this.describe(position);
  }

  offer(position, title, choices) {
    const swatches = choices.map(([code, choice]) => {
      const swatch = this.codebook.swatch(code, () => {
        if (this.choiceAt(position) === choice) return;
        this.history.push([position, this.choiceAt(position)]);
        this.put(position, choice);
      });
      swatch.ariaPressed = String(this.choiceAt(position) === choice);
      return swatch;
    });
    return [
      element("p", { className: "label", textContent: title }),
      element("div", { className: "swatches" }, ...swatches),
    ];
  }

  /** Which of its choices stands at a position; null for its own code. */
  choiceAt(position) {
    return this.edits.get(position) ?? null;
  }

  /** Put one of its choices at a position; null for its own code. */
  put(position, choice) {
    this.edits.delete(position);
    if (choice !== null) this.edits.set(position, choice);
    this.current[position] = choice === null ? this.board.codes[position] : this.board.choices[position][choice];
    this.squares[position].classList.toggle("changed", choice !== null);
    const focused = byId("palette").contains(document.activeElement) && document.activeElement.dataset.code;
    this.choose(position);
    // The palette has new buttons: whoever works with the keyboard stays on the same one.
    if (focused) byId("palette").querySelector(`[data-code="${focused}"]`)?.focus({ preventScroll: true });
    this.label();
    this.canvas.draw(this.edits);
  }

  label() {
    this.squares.forEach((square, i) => {
      square.dataset.code = this.codebook.codes.index[this.current[i]];
      const [row, column] = [Math.floor(i / this.side) + 1, (i % this.side) + 1];
      square.ariaLabel = `row ${row}, column ${column}: code ${square.dataset.code}`;
    });
    byId("undo").disabled = !this.history.length;
    byId("reset").disabled = !this.edits.size;
  }
}

/** The pixels of the board: those of the image, plus how each edit changes them. */
class BoardCanvas {
  constructor(canvas, board) {
    this.canvas = canvas;
    this.board = board;
    this.tile = (2 * board.reach + 1) * board.factor; // the side of the square that one edit can change
    canvas.width = canvas.height = board.side * board.factor;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.scratch = element("canvas", { width: this.tile, height: this.tile }).getContext("2d", { willReadFrequently: true });
    this.original = null; // the pixels without any edit, once they are there
    this.edits = new Map();
    const [picture, changes] = [new Image(), new Image()];
    picture.src = board.picture;
    changes.src = board.changes;
    this.changes = changes;
    Promise.all([picture.decode(), changes.decode()]).then(() => {
      this.context.drawImage(picture, 0, 0);
      this.original = this.context.getImageData(0, 0, canvas.width, canvas.height);
      this.draw(this.edits);
    });
  }

  draw(edits) {
    this.edits = edits;
    if (!this.original) return;
    const sum = Int16Array.from(this.original.data);
    for (const [position, choice] of edits) this.add(position, choice, sum);
    const result = new ImageData(this.canvas.width, this.canvas.height);
    result.data.set(sum); // clamps to [0, 255]
    this.context.putImageData(result, 0, 0);
    byId("board").dataset.drawn = String(edits.size);
  }

  /** Add how one edit changes the pixels around its position. */
  add(position, choice, sum) {
    const { side, factor, reach, choices } = this.board;
    const { width, height } = this.canvas;
    const { tile } = this;
    const old = this.original.data;
    const [row, column] = [Math.floor(position / side), position % side];
    const top = (row * choices[0].length + choice) * tile;
    this.scratch.clearRect(0, 0, tile, tile);
    this.scratch.drawImage(this.changes, column * tile, top, tile, tile, 0, 0, tile, tile);
    const change = this.scratch.getImageData(0, 0, tile, tile).data;
    for (let y = 0; y < tile; y++) {
      const down = (row - reach) * factor + y;
      if (down < 0 || down >= height) continue;
      for (let x = 0; x < tile; x++) {
        const right = (column - reach) * factor + x;
        if (right < 0 || right >= width) continue;
        const to = 4 * (down * width + right);
        const from = 4 * (y * tile + x);
        // The file holds new minus old modulo 256: the old value gives back the new one, and with it the difference.
        for (let c = 0; c < 3; c++) sum[to + c] += ((old[to + c] + change[from + c]) & 255) - old[to + c];
      }
    }
  }
}
