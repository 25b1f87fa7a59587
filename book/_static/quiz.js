/* Quizzes: a button checks what was chosen and says why it is right or wrong. Without scripts all of this can be unfolded. */
(() => {
  "use strict";

  const WORDS = { right: "Right.", partly: "Not quite.", wrong: "No.", none: "Choose an answer first." };

  function verdict(chosen, right) {
    if (!chosen.length) return "none";
    if (chosen.length === right.length && chosen.every((letter) => right.includes(letter))) return "right";
    return chosen.some((letter) => right.includes(letter)) ? "partly" : "wrong";
  }

  // a copy of an explanation, formulas and all; what has an id keeps it in the folded block alone
  function copy(reason) {
    const item = reason.cloneNode(true);
    for (const element of [item, ...item.querySelectorAll("[id]")]) element.removeAttribute("id");
    return item;
  }

  function check(question) {
    const reasons = [...question.querySelectorAll(".quiz-answers li[data-answer]")];
    const right = reasons.filter((r) => r.classList.contains("quiz-right")).map((r) => r.dataset.answer);
    const chosen = [...question.querySelectorAll("input:checked")].map((input) => input.value);
    const found = verdict(chosen, right);
    const heading = document.createElement("p");
    heading.append(Object.assign(document.createElement("strong"), { textContent: WORDS[found] }));
    const missing = right.filter((letter) => !chosen.includes(letter)).length;
    if (found === "partly" && chosen.every((letter) => right.includes(letter)))
      heading.append(missing > 1 ? ` ${missing} right answers are still missing.` : " One right answer is still missing.");
    const list = document.createElement("ul");
    list.append(...reasons.filter((r) => chosen.includes(r.dataset.answer)).map(copy));
    const said = question.querySelector(".quiz-said");
    said.dataset.verdict = found;
    said.replaceChildren(heading, ...(list.childElementCount ? [list] : []));
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const question of document.querySelectorAll(".quiz-question")) {
      const said = question.querySelector(".quiz-said");
      const button = Object.assign(document.createElement("button"), { type: "button", className: "quiz-check", textContent: "Check" });
      button.addEventListener("click", () => check(question));
      question.addEventListener("change", () => {
        delete said.dataset.verdict;
        said.replaceChildren();
      });
      said.before(button);
    }
  });
})();
