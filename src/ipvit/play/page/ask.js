// Questions to the server, and what to do when they come faster than the answers.

const key = location.hash.slice(1);

export class Overtaken extends Error {} // another window asked for something newer

export async function ask(path, body, headers = { "Content-Type": "application/json" }) {
  let answer;
  try {
    answer = await fetch(`/api/${path}`, {
      method: "POST",
      headers: { ...headers, "X-Ipvit-Key": key },
      body: body === undefined || body instanceof Blob ? body : JSON.stringify(body),
    });
  } catch {
    throw new Error("The playground does not answer: is ipvit play still running in the terminal?");
  }
  const content = await answer.json();
  if (answer.status === 409) throw new Overtaken(content.error);
  if (!answer.ok) throw new Error(content.error);
  return content;
}

// Returns a function that runs `work`, one run at a time. Called during a run it makes one more run follow, however
// often it was called: whoever moves a slider gets the newest state next, and no queue of old ones.
export function latest(work, fail) {
  let running = false;
  let again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      try {
        await work();
      } catch (error) {
        if (error instanceof Overtaken) {
          await new Promise((resume) => setTimeout(resume, 100));
          again = true;
        } else fail(error.message);
      }
    }
    running = false;
  };
}

export function complain(line, text) {
  line.textContent = text;
  line.hidden = !text;
}

export function option(value, text, selected = false) {
  return new Option(text, value, selected, selected);
}
