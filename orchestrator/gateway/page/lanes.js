// The lanes: what each stage process is like, and the images in it, which move from lane to lane.

import { LaneCard } from "./lane_card.js";
import { ORDER, bar, make, say } from "./text.js";

const TITLES = { queue: "Waiting", text: "Text", unet: "U-Net", vae: "VAE" };
const DWELL_MS = 240; // a card stays so long in a lane: an encoder takes less than the eye
const MOVE_MS = 320;
const narrow = matchMedia("(max-width: 860px)");
const shown = () => (narrow.matches ? 2 : 3); // cards of a lane; the others are counted

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Lanes {
  /** `kill(stage)` is called for the name of a stage process that is to die. */
  constructor(root, kill) {
    this.kill = kill;
    this.playground = false;
    this.cards = new Map();
    this.processes = new Map();
    this.timer = 0;
    this.wanted = new Map();
    this.waiting = 0;
    this.working = new Set(); // kinds of stage that have a job now
    this.lanes = new Map(ORDER.map((lane) => [lane, this.#lane(root, lane)]));
  }

  /** Show the stage processes as the pipeline's newest facts have them. */
  showPipeline({ stages, queue }) {
    this.waiting = queue?.waiting ?? 0;
    this.working = new Set(stages.filter((stage) => stage.working).map((stage) => stage.kind));
    for (const stage of stages) {
      const process = this.processes.get(stage.name) ?? this.#process(stage);
      const down = stage.state !== "serving";
      const lone = stages.filter((each) => each.kind === stage.kind).length === 1;
      const facts = [lone ? "" : stage.name, stage.cores && `cores ${stage.cores}`, stage.precision];
      say(process.facts, facts.filter(Boolean).join(" · "));
      say(process.state, down ? stage.state : "");
      say(process.busy, down ? "" : `${Math.round(100 * stage.busy_share)} %`);
      process.fill(down ? 1 : stage.busy_share);
      process.element.toggleAttribute("data-down", down);
      process.kill.hidden = !this.playground;
      process.kill.title = `SIGKILL to process ${stage.pid ?? "-"}; its work goes on in the next one`;
    }
    for (const [kind, lane] of this.lanes) {
      const down = stages.some((each) => each.kind === kind && each.state !== "serving");
      lane.element.toggleAttribute("data-down", down);
    }
    this.#count();
  }

  /** Show images: `wanted` is a map from a card's key to {lane, step, steps, prompt, src, position, gone}. */
  showCards(wanted) {
    this.wanted = wanted;
    this.#step();
  }

  /** Move each card one lane on, if it has been where it is for long enough; come again for those that have not. */
  #step() {
    clearTimeout(this.timer);
    this.timer = 0;
    const now = performance.now();
    const moves = [];
    let next = Infinity;
    for (const [key, at] of this.wanted) {
      if (!this.cards.has(key) && !at.gone && at.lane !== "out") moves.push([new LaneCard(key), at.lane]);
    }
    for (const [key, card] of this.cards) {
      const to = this.#towards(card.lane, this.wanted.get(key));
      if (to === card.lane) continue;
      const left = calm.matches ? 0 : card.since + DWELL_MS - now;
      if (left > 0) next = Math.min(next, left);
      else moves.push([card, to]);
    }
    if (moves.length || this.#overtaken()) this.#move(moves, now);
    for (const [key, card] of this.cards) if (this.wanted.has(key)) card.show(this.wanted.get(key), this.working.has(card.lane));
    this.#mark();
    this.#count();
    if (next < Infinity) this.timer = setTimeout(() => this.#step(), next);
    else if (moves.length) this.timer = setTimeout(() => this.#step(), DWELL_MS);
  }

  /** The next lane on the way: no stage is left out that an image has passed, however fast it was. */
  #towards(lane, at) {
    if (!at || at.gone) return "out";
    const order = [...ORDER, "out"];
    const [from, to] = [order.indexOf(lane), order.indexOf(at.lane)];
    return to > from ? order[from + 1] : order[to];
  }

  /** Move cards, and let all that are elsewhere then glide there from where they were. */
  #move(moves, now) {
    const before = new Map([...this.cards.values()].map((card) => [card, card.element.getBoundingClientRect()]));
    for (const [card, to] of moves) {
      card.lane = to;
      card.since = now;
      if (to === "out") {
        this.cards.delete(card.key);
        this.#leave(card, before.get(card));
        continue;
      }
      this.cards.set(card.key, card);
      this.lanes.get(to).list.append(card.element);
    }
    this.#order();
    if (calm.matches) return;
    for (const card of this.cards.values()) {
      const [from, to] = [before.get(card), card.element.getBoundingClientRect()];
      if (!from) {
        card.element.animate([{ opacity: 0, transform: "translateY(6px)" }, {}], { duration: MOVE_MS / 2 });
      } else if (from.width && to.width && (from.left !== to.left || from.top !== to.top)) {
        const start = `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
        const timing = { duration: MOVE_MS, easing: "cubic-bezier(.3, .8, .3, 1)" };
        card.element.animate([{ transform: start, zIndex: 2 }, { transform: "none", zIndex: 2 }], timing);
      }
    }
  }

  #leave(card, from) {
    card.element.remove();
    if (calm.matches || !from?.width) return;
    const ghost = card.element;
    const { style } = ghost;
    Object.assign(style, { position: "fixed", left: `${from.left}px`, top: `${from.top}px`, width: `${from.width}px` });
    style.pointerEvents = "none";
    ghost.setAttribute("aria-hidden", "true");
    const layer = document.getElementById("pipeline").appendChild(make("ul", "ghosts"));
    layer.append(ghost);
    const end = [{ opacity: 1 }, { opacity: 0, transform: "translateY(28px) scale(.96)" }];
    ghost.animate(end, { duration: MOVE_MS, fill: "forwards" }).finished.finally(() => layer.remove());
  }

  /** The cards of each lane in order: those that are furthest come first, in the queue those that go first. */
  *#sorted() {
    const rank = (card) => {
      const at = this.wanted.get(card.key);
      return at ? (at.position ?? 0) - (at.steps ? at.step / at.steps : 0) : 0;
    };
    for (const [lane, { list }] of this.lanes) {
      const cards = [...this.cards.values()].filter((card) => card.lane === lane);
      yield [list, cards.toSorted((a, b) => rank(a) - rank(b))];
    }
  }

  /** Whether a card is not where it belongs in its lane, because one has overtaken another. */
  #overtaken() {
    return [...this.#sorted()].some(([list, cards]) => cards.some((card, place) => list.children[place] !== card.element));
  }

  #order() {
    for (const [list, cards] of this.#sorted()) {
      cards.forEach((card, place) => {
        if (list.children[place] !== card.element) list.insertBefore(card.element, list.children[place]);
        card.element.hidden = place >= shown();
      });
    }
  }

  /** Mark the cards that their stage works on. */
  #mark() {
    for (const [, cards] of this.#sorted()) {
      cards.forEach((card, place) => card.element.classList.toggle("active", this.#active(card, place)));
    }
  }

  /** Whether its stage works on it now, and does not only hold it. */
  #active(card, place) {
    const at = this.wanted.get(card.key);
    if (card.lane === "unet") return at?.lane === "unet" && at.step > 0;
    return card.lane !== "queue" && place === 0 && this.working.has(card.lane);
  }

  #count() {
    for (const [name, lane] of this.lanes) {
      const cards = lane.list.children.length;
      const count = name === "queue" ? Math.max(cards, this.waiting) : cards;
      say(lane.more, count > shown() ? `and ${count - shown()} more` : "");
      say(lane.count, count ? String(count) : "");
    }
  }

  #lane(root, name) {
    const element = root.appendChild(make("section", "lane", "", { "aria-label": TITLES[name], "data-lane": name }));
    const head = element.appendChild(make("div", "lane-head"));
    const title = head.appendChild(make("h2", "lane-title", TITLES[name]));
    const count = title.appendChild(make("span", "count"));
    const idle = name === "queue" ? "nothing waits" : "idle";
    const list = element.appendChild(make("ul", "lane-cards", "", { "data-idle": idle }));
    const more = element.appendChild(make("p", "lane-more"));
    return { element, head, count, list, more };
  }

  #process(stage) {
    const element = this.lanes.get(stage.kind).head.appendChild(make("div", "process", "", { "data-stage": stage.name }));
    const line = element.appendChild(make("div", "process-line"));
    const facts = line.appendChild(make("span"));
    const state = line.appendChild(make("span", "state"));
    const busy = line.appendChild(make("span", "busy", "", { title: "share of the last seconds at work" }));
    const kill = line.appendChild(make("button", "kill", "Kill", { type: "button" }));
    kill.setAttribute("aria-label", `Kill ${stage.name}`);
    kill.addEventListener("click", () => this.kill(stage.name));
    const [track, fill] = bar();
    element.append(track);
    const process = { element, facts, state, busy, kill, fill };
    this.processes.set(stage.name, process);
    return process;
  }
}
