// The card of one picture: it waits, its preview grows in place, then it is the picture.

import { parameters } from "./png.js";
import { STAGES, bar, make, say, seconds, share } from "./text.js";

const BLUR_PX = 5;

const TITLES = {
  cancel: "Give this picture up",
  retry: "Ask for it again",
  again: "The same with another seed",
  use: "Use these parameters in the form",
  download: "Download the file",
};

export class Card {
  /** `act(name, card)` is called for what is pressed: cancel, retry, again, download, use, open. */
  constructor(id, index, act) {
    this.id = id;
    this.index = index;
    this.job = null;
    this.element = make("article", "card");
    this.frame = this.element.appendChild(make("button", "frame bare", "", { type: "button" }));
    this.picture = null;
    this.fetched = false;
    this.file = ""; // where the picture is: on this side, as the server keeps it for a while only
    this.says = this.frame.appendChild(make("span", "says"));
    [this.bar, this.fill] = bar();
    this.element.append(this.bar);
    const about = this.element.appendChild(make("div", "about"));
    this.caption = about.appendChild(make("p", "caption"));
    this.meta = about.appendChild(make("p", "meta"));
    this.note = about.appendChild(make("p", "note"));
    this.why = about.appendChild(make("p", "why"));
    this.actions = about.appendChild(make("div", "actions"));
    this.shown = "";
    this.act = act;
    this.frame.addEventListener("click", () => { if (this.image) act("open", this); });
  }

  get image() {
    return this.job?.images.get(this.index);
  }

  /** The state of this picture, which may be done before its job is. */
  get state() {
    if (this.image) return "done";
    return this.job.state === "running" && !this.job.progress.has(this.index) ? "queued" : this.job.state;
  }

  show(job) {
    this.job = job;
    const { state, image } = this;
    const { request } = job;
    const at = job.progress.get(this.index);
    this.element.dataset.state = state;
    if (request?.width) this.frame.style.aspectRatio = `${request.width} / ${request.height}`;
    say(this.caption, request?.prompt ?? "A prompt of before the gateway was started anew");
    if (image && !this.fetched) this.#keep(image);
    this.#source(image ? this.file : job.previews.get(this.index)?.src, state, share(at));
    this.#words(state, at);
    this.fill(share(at));
    say(this.note, job.notes.get(this.index) ?? "");
    this.note.hidden = !this.note.textContent;
    say(this.why, state === "failed" ? job.error?.message ?? "" : "");
    this.why.hidden = !this.why.textContent;
    this.#buttons(state);
  }

  /** Fetch the picture, once; where that fails, the server's own address is all there is. */
  async #keep(image) {
    this.fetched = true;
    this.file = this.picture?.getAttribute("src") ?? ""; // the last preview, until it is here
    const address = image.url.slice(1);
    try {
      const answer = await fetch(address);
      const blob = answer.ok ? await answer.blob() : null;
      this.file = blob ? URL.createObjectURL(blob) : address;
      // After a gateway was started anew the picture alone still says what it is.
      if (blob && !this.job.request) this.job.request = await parameters(blob);
    } catch {
      this.file = address;
    }
    this.show(this.job);
  }

  #source(source, state, done) {
    if (source && !this.picture) {
      this.picture = make("img");
      this.frame.prepend(this.picture);
    }
    this.frame.classList.toggle("bare", !this.picture);
    if (!this.picture) return;
    if (source && this.picture.getAttribute("src") !== source) this.picture.setAttribute("src", source);
    this.picture.alt = state === "done" ? this.caption.textContent : "preview";
    this.picture.style.filter = state === "done" ? "" : `blur(${(BLUR_PX * (1 - done)).toFixed(1)}px)`;
  }

  #words(state, at) {
    const { job, image } = this;
    const eta = job.eta ? ` · ~${seconds(job.eta)}` : "";
    const percent = `${Math.round(100 * share(at))} %`;
    const big = { queued: job.position ? `${job.position} before it` : "next", running: percent }[state];
    const key = `${big}`;
    if (this.says.dataset.key !== key) {
      this.says.dataset.key = key;
      this.says.replaceChildren(...(big ? [make("b", "", big)] : []));
    }
    const steps = at?.steps > 1 ? ` ${at.step}/${at.steps}` : "";
    const meta = {
      queued: `waiting${eta}`,
      running: at ? `${STAGES[at.stage]}${steps}${eta}` : "",
      done: image ? `${seconds(image.timings.total_s)} · seed ${image.seed}` : "",
      failed: "failed",
      cancelled: "cancelled",
    }[state];
    say(this.meta, meta ?? "");
    const label = { done: "Open", queued: "Waits", running: percent }[state] ?? state;
    this.frame.setAttribute("aria-label", `${label}: ${this.caption.textContent}`);
  }

  #buttons(state) {
    if (this.shown === state) return;
    this.shown = state;
    const held = this.actions.contains(document.activeElement);
    const names = {
      queued: [["cancel", "Cancel"]],
      running: [["cancel", "Cancel"]],
      done: [["download", "Save"], ["use", "Reuse"], ["again", "Again"]],
      failed: [["retry", "Retry"], ["use", "Reuse"]],
      cancelled: [["retry", "Retry"], ["use", "Reuse"]],
    }[state];
    if (this.actions.dataset.names === String(names)) return;
    this.actions.dataset.names = String(names);
    this.actions.replaceChildren(...names.map(([name, text]) => {
      const button = make("button", "", text, { type: "button", "data-act": name, title: TITLES[name] });
      button.addEventListener("click", () => this.act(name, this));
      return button;
    }));
    if (held) this.actions.firstChild?.focus(); // the button that was pressed has gone
  }
}
