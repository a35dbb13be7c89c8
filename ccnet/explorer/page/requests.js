// Requests to the explorer, and refusals in words.

export class Refused extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

/** Returns what is answered; throws `Refused` with the reason otherwise. */
export async function ask(path, values = {}, init = {}) {
  let answer;
  try {
    answer = await fetch(`${path}?${new URLSearchParams(values)}`, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The explorer does not answer: is it still running?");
  }
  const content = await answer.json();
  if (!answer.ok) throw new Refused(answer.status, content.error);
  return content;
}
