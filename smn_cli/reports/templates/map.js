"use strict";
(() => {
  const maps = document.getElementById("maps"), peek = document.getElementById("peek");
  const sheet = peek.querySelector("img"), words = peek.querySelector("output");
  const pictures = [...maps.querySelectorAll("svg")];
  const points = pictures.map((picture) => [...picture.querySelectorAll("circle")]);
  const names = points[0].map((point) => point.querySelector("title").textContent);
  const columns = Number(peek.dataset.columns), side = Number(peek.dataset.side), scale = 128 / side;
  maps.querySelectorAll("title").forEach((title) => title.remove());
  let chosen = -1;

  function show(at) {
    for (const each of points) {
      each[chosen]?.classList.remove("at");
      each[at].classList.add("at");
    }
    chosen = at;
    const left = (at % columns) * side, top = Math.floor(at / columns) * side;
    sheet.style.transform = `scale(${scale}) translate(${-left}px, ${-top}px)`;
    sheet.style.visibility = "visible";
    sheet.alt = names[at];
    words.textContent = names[at];
  }

  // the nearest point, so that a finger need not hit one
  function nearest(picture, event) {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    let best = -1, least = 40 ** 2;
    points[pictures.indexOf(picture)].forEach((point, at) => {
      const away = (point.cx.baseVal.value - place.x) ** 2 + (point.cy.baseVal.value - place.y) ** 2;
      if (away < least) [best, least] = [at, away];
    });
    return best;
  }

  for (const picture of pictures) {
    for (const kind of ["pointermove", "pointerdown"]) {
      picture.addEventListener(kind, (event) => {
        const at = nearest(picture, event);
        if (at >= 0 && at !== chosen) show(at);
      });
    }
  }
  maps.addEventListener("keydown", (event) => {
    const turn = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!turn) return;
    event.preventDefault();
    show((Math.max(chosen, turn < 0 ? 0 : -1) + turn + names.length) % names.length);
  });
  peek.hidden = false;
})();
