// The pictures, those asked for last first.

import { Card } from "./card.js";

export class Gallery {
  constructor(root, act) {
    this.root = root;
    this.empty = root.querySelector("#empty");
    this.cards = new Map();
    this.act = act;
  }

  show(job) {
    const count = Math.max(1, job.keys.length);
    for (let index = 0; index < count; index++) {
      const key = `${job.id} ${index}`;
      let card = this.cards.get(key);
      if (!card) {
        card = new Card(job.id, index, this.act);
        this.cards.set(key, card);
        card.show(job);
        this.#place(card);
      } else {
        card.show(job);
      }
    }
    this.empty.hidden = this.cards.size > 0;
  }

  /** Cards with a picture, in the order of the screen. */
  done() {
    return [...this.root.children].map((element) => this.#of(element)).filter((card) => card?.image);
  }

  #of(element) {
    return [...this.cards.values()].find((card) => card.element === element);
  }

  #place(card) {
    const rank = (each) => [each.job.created, -each.index];
    const [created, index] = rank(card);
    const next = [...this.root.children].find((element) => {
      const other = this.#of(element);
      if (!other || other === card) return false;
      const [at, number] = rank(other);
      return at < created || (at === created && number < index);
    });
    this.root.insertBefore(card.element, next ?? null);
  }
}
