// What goes wrong becomes a sentence of the table, in the language that the page has then.

export class Complaint extends Error {
  constructor(key, values = {}) {
    super(key);
    Object.assign(this, { key, values });
  }
}
