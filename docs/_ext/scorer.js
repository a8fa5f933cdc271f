// Sphinx counts in how many titles and texts a word stands. A page that names what was typed among its own
// "search words" goes first; pages about everything (changelog, generated lists) go last.
const searchWords = __WORDS__;
const aboutEverything = new Set(["changelog", "reference/commands", "reference/study", "reference/recipe"]);
const typed = (new URLSearchParams(window.location.search).get("q") || "").toLowerCase().trim();

function namedBy(page) {
  const words = searchWords[page] || [];
  if (words.includes(typed)) return 200;
  if (words.some((word) => word.includes(typed))) return 120;
  const parts = typed.split(/\s+/);
  return parts.every((part) => words.some((word) => word.includes(part))) ? 80 : 0;
}

var Scorer = {
  score: (result) => {
    const [page, , , , score] = result;
    return score + (typed ? namedBy(page) : 0) - (aboutEverything.has(page) ? 10 : 0);
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
