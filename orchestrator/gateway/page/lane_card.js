// A card in a lane: one image on its way. Of other people's it tells where it is, and not what.

import { bar, make, say } from "./text.js";

export class LaneCard {
  constructor(key) {
    this.key = key;
    this.lane = null;
    this.since = 0;
    this.element = make("li", "lane-card");
    this.thumb = this.element.appendChild(make("span", "thumb"));
    this.what = this.element.appendChild(make("span", "what"));
    const where = this.element.appendChild(make("span", "where"));
    [this.bar, this.fill] = bar();
    this.steps = make("span");
    where.append(this.steps, this.bar);
    this.source = "";
  }

  /** Fill in: `at` is {lane, step, steps, prompt, src, position}; `working` whether its stage has anything to do. */
  show(at, working) {
    this.element.classList.toggle("own", at.prompt !== undefined);
    say(this.what, at.prompt ?? "somebody else's");
    const inSteps = this.lane === "unet" && at.lane === "unet" && at.steps > 0;
    let words = { queue: "next", text: working ? "encoding" : "encoded", unet: "denoising", vae: "decoding" }[this.lane];
    if (this.lane === "queue" && at.position) words = `${at.position} before it`;
    if (inSteps) words = `${at.step}/${at.steps}`;
    say(this.steps, words);
    this.bar.hidden = !inSteps;
    if (inSteps) this.fill(at.step / at.steps);
    if (at.src && at.src !== this.source) {
      this.source = at.src;
      this.thumb.replaceChildren(make("img", "", "", { src: at.src, alt: "" }));
    }
  }
}
