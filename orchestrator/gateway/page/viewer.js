// The viewer: one picture as large as it goes, its parameters, and the way to the ones beside it.

import { make, seconds } from "./text.js";

export class Viewer {
  constructor(dialog, cards, act) {
    this.dialog = dialog;
    this.cards = cards;
    this.act = act;
    this.card = null;
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) this.#go(step);
    });
  }

  open(card) {
    this.#show(card);
    if (!this.dialog.open) this.dialog.showModal();
  }

  #go(step) {
    const cards = this.cards();
    const to = cards[cards.indexOf(this.card) + step];
    if (to) this.#show(to);
  }

  #show(card) {
    const held = this.dialog.contains(document.activeElement) ? document.activeElement.dataset.act : null;
    this.card = card;
    const { image, job } = card;
    const request = job.request ?? {};
    const body = make("div", "viewer-body");
    body.append(make("img", "", "", { src: card.file, alt: request.prompt ?? "" }));
    const side = body.appendChild(make("div", "viewer-side"));
    side.append(make("p", "caption", request.prompt ?? ""));
    const list = side.appendChild(make("dl"));
    const { timings } = image;
    const facts = {
      "Not in it": request.negative_prompt,
      Seed: image.seed,
      Steps: request.steps ?? "the model's own",
      Guidance: request.guidance_scale ?? "the model's own",
      Schedule: request.schedule ?? "the model's own",
      Size: `${image.width} × ${image.height}`,
      Waited: seconds(timings.queue_s),
      Text: seconds(timings.text_s),
      "U-Net": seconds(timings.unet_s),
      VAE: seconds(timings.vae_s),
      "In all": seconds(timings.total_s),
    };
    for (const [name, value] of Object.entries(facts)) {
      if (value !== undefined && value !== "") list.append(make("dt", "", name), make("dd", "", String(value)));
    }
    const actions = side.appendChild(make("div", "actions"));
    const buttons = { previous: "← Previous", next: "Next →", download: "Download", use: "Use parameters", close: "Close" };
    for (const [name, text] of Object.entries(buttons)) {
      const button = actions.appendChild(make("button", "", text, { type: "button", "data-act": name }));
      button.addEventListener("click", () => this.#press(name));
    }
    this.dialog.replaceChildren(body);
    this.dialog.querySelector(`[data-act="${held ?? "next"}"]`)?.focus();
  }

  #press(name) {
    if (name === "previous") this.#go(-1);
    else if (name === "next") this.#go(1);
    else {
      if (name !== "download") this.dialog.close();
      if (name !== "close") this.act(name, this.card);
    }
  }
}
