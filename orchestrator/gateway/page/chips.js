// Chips of what the embedded model can draw; pressed ones make the caption that it was trained with.

import { make } from "./text.js";

const ROWS = [
  ["style", ["styles"]],
  ["who", ["riders"]],
  ["rides", ["mounts"]],
  ["thing", ["things"]],
  ["where", ["places"]],
];

const article = (noun) => `${"aeio".includes(noun[0]) ? "an" : "a"} ${noun}`;
const any = (words) => words[Math.floor(Math.random() * words.length)];

function caption({ style, who, rides, thing, where }) {
  const first = who ?? thing ?? rides;
  const second = [rides, thing].find((word) => word && word !== first);
  const relation = who && second === rides ? " riding " : " and ";
  const subject = first ? article(first) + (second ? relation + article(second) : "") : "";
  return [style, subject, where].filter(Boolean).join(" ");
}

/** A scene that the model can draw, at random. */
export function randomScene(world) {
  return caption({ style: any(world.styles), who: any(world.riders), rides: any(world.mounts), where: any(world.places) });
}

/** Draw the chips into `root`; `write(text)` is called with the caption of those that are pressed. */
export function drawChips(root, world, write) {
  const chosen = {};
  root.replaceChildren();
  for (const [row, lists] of ROWS) {
    const line = root.appendChild(make("div", "chip-row", "", { role: "group", "aria-label": row }));
    line.append(make("span", "", row));
    const words = line.appendChild(make("div"));
    for (const word of lists.flatMap((list) => world[list])) {
      const chip = words.appendChild(make("button", "chip", word, { type: "button", "aria-pressed": "false" }));
      chip.addEventListener("click", () => {
        chosen[row] = chosen[row] === word ? undefined : word;
        for (const other of words.children) other.setAttribute("aria-pressed", String(other.textContent === chosen[row]));
        write(caption(chosen));
      });
    }
  }
}
