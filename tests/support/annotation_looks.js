// What can be measured of a page's looks; tests/support/annotation_looks.py calls it. Everything looks at what is visible now.
(() => {
  const nameOf = (element) => {
    const id = element.id && `#${element.id}`;
    return [element.tagName.toLowerCase() + id, ...element.classList].join(".");
  };
  const isShown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const stage = () => document.querySelector("dialog[open]") ?? document.body; // a dialog makes the rest inert

  // -- colours: relative luminance and contrast as in WCAG 2.2 ------------------------------------------------------

  const parse = (text) => {
    if (!/^(rgba?|color\(srgb )/.test(text)) throw Error(`what colour is ${text}?`);
    const numbers = text.match(/[\d.]+(e-?\d+)?/g).map(Number);
    const scale = text.startsWith("color(") ? 255 : 1;
    return { rgb: numbers.slice(0, 3).map((one) => one * scale), alpha: numbers[3] ?? 1 };
  };
  const over = (top, alpha, below) => top.map((one, i) => one * alpha + below[i] * (1 - alpha));
  const luminance = (rgb) => {
    const linear = (one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((one) => linear(one / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [dark, bright] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const background = (element) => { // what is behind the text of an element
    const isDark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
    if (!element) return isDark ? [18, 18, 18] : [255, 255, 255];
    const style = getComputedStyle(element);
    if (style.backgroundImage !== "none") throw Error(`there is a picture behind ${element.outerHTML.slice(0, 80)}`);
    const own = parse(style.backgroundColor);
    return own.alpha === 1 ? own.rgb : over(own.rgb, own.alpha, background(element.parentElement));
  };
  const opacity = (element) =>
    element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1;

  // -- text ---------------------------------------------------------------------------------------------------------

  const texts = () => { // text nodes that are visible
    const found = [];
    const walker = document.createTreeWalker(stage(), NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const isText = !["SCRIPT", "STYLE", "OPTION"].includes(node.parentElement.tagName);
      if (node.data.trim() && isText && isShown(node.parentElement)) found.push(node);
    }
    if (!found.length) throw Error("there is no text");
    return found;
  };
  const fields = () => [...stage().querySelectorAll("textarea, select, input:not([type=radio])")].filter(isShown);

  const pale = (least) => { // text of less contrast than that
    const wrong = [];
    const check = (element, colour, said) => {
      const behind = background(element), own = parse(colour);
      const ratio = contrast(over(own.rgb, own.alpha * opacity(element), behind), behind);
      if (ratio < least) wrong.push(`${ratio.toFixed(2)} ${nameOf(element)}: ${said.trim().slice(0, 40)}`);
    };
    for (const node of texts()) check(node.parentElement, getComputedStyle(node.parentElement).color, node.data);
    for (const field of fields()) {
      const part = field.value || !field.placeholder ? null : "::placeholder";
      check(field, getComputedStyle(field, part).color, field.value || field.placeholder || "");
    }
    return wrong;
  };

  // Text has to lie within each box around it, unless the box scrolls: then it is reached by scrolling.
  const SLACK = 1.5;
  const sticksOut = (box, edge) => ({
    wide: box.left < edge.left - SLACK || box.right > edge.right + SLACK,
    tall: box.top < edge.top - SLACK || box.bottom > edge.bottom + SLACK,
  });
  const holder = (element) => { // the box around a box
    const place = getComputedStyle(element).position;
    if (place === "fixed") return null;
    return place === "absolute" ? element.offsetParent : element.parentElement;
  };
  const isTold = (element) => element.title && element.title.includes(element.textContent.trim());
  const hidden = (box, element) => { // why a line of text cannot be read whole, if so
    for (let around = element; around && around !== document.documentElement; around = holder(around)) {
      const style = getComputedStyle(around);
      if (["contents", "inline"].includes(style.display)) continue;
      const { wide, tall } = sticksOut(box, around.getBoundingClientRect());
      const scrolls = (axis) => ["auto", "scroll"].includes(style[axis]);
      const isShortened = style.textOverflow === "ellipsis" && isTold(around);
      if (wide && !scrolls("overflowX") && !isShortened) return `wider than ${nameOf(around)}`;
      if (tall && ["hidden", "clip"].includes(style.overflowY)) return `taller than ${nameOf(around)}`;
      if (wide || (tall && scrolls("overflowY"))) return "";
    }
    const { wide, tall } = sticksOut(box, { left: 0, top: 0, right: innerWidth, bottom: innerHeight });
    return wide || (tall && getComputedStyle(document.body).overflowY === "hidden") ? "outside the window" : "";
  };
  const reason = (node, start, end) => { // why a part of a text cannot be read
    const range = document.createRange();
    range.setStart(node, start);
    range.setEnd(node, end);
    for (const box of range.getClientRects()) {
      const why = box.width > 1 && hidden(box, node.parentElement);
      if (why) return why;
    }
    return "";
  };
  const cutOff = () => { // text that cannot be read whole; spaces at the end of a line may hang out
    const wrong = [];
    for (const node of texts().filter((one) => reason(one, 0, one.length))) {
      for (const word of node.data.matchAll(/\S+/g)) {
        const why = reason(node, word.index, word.index + word[0].length);
        if (why) { wrong.push(`${why}: ${nameOf(node.parentElement)}: ${word[0].slice(0, 40)}`); break; }
      }
    }
    for (const field of fields())
      if (field.scrollWidth > field.clientWidth + SLACK) wrong.push(`too wide for its field: ${nameOf(field)}`);
    if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is wider than the window");
    return wrong;
  };

  const outside = (selector) => { // why an element is not wholly in the window, if so
    const element = document.querySelector(selector);
    if (!element || !isShown(element)) return `${selector} is not visible`;
    const { left, top, right, bottom } = element.getBoundingClientRect();
    const isInside = left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
    return isInside ? "" : `${selector} is at ${[left, top, right, bottom].map(Math.round)}`;
  };

  // -- the focus ----------------------------------------------------------------------------------------------------

  const toTheTop = () => { // the next Tab goes to the first thing on the page
    const first = document.createElement("span");
    first.tabIndex = -1;
    document.body.prepend(first);
    first.focus();
    first.remove();
  };
  const ring = (least) => { // of what has the focus: its place and name, and what is wrong with its ring
    const element = document.activeElement;
    if (!element || element === document.body) return null;
    const shown = element.closest(".option, .bin, .reason") ?? element; // radio buttons are drawn by their labels
    const place = [...document.querySelectorAll("*")].indexOf(element);
    const called = `${place} ${nameOf(element)} ${element.value ?? ""} ${element.innerText ?? ""}`.slice(0, 60).trim();
    const style = getComputedStyle(shown);
    if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2) return [called, "no ring"];
    const ratio = contrast(parse(style.outlineColor).rgb, background(shown.parentElement));
    return [called, ratio < least ? `a ring of contrast ${ratio.toFixed(2)}` : ""];
  };

  const isEndless = (animation) => animation.effect.getComputedTiming().endTime === Infinity;
  const moving = () => {
    const endless = document.getAnimations().filter(isEndless).map((one) => one.effect.target);
    return endless.map((one) => `${nameOf(one)} moves for ever`);
  };
  const drawn = async (theme) => { // once the page has this theme, nothing moves any more, and all is on the screen
    const frame = () => new Promise(requestAnimationFrame);
    while ((document.documentElement.dataset.theme ?? theme) !== theme) await frame();
    await Promise.allSettled(document.getAnimations().filter((one) => !isEndless(one)).map((one) => one.finished));
    await frame();
    await frame();
  };

  const contrastOf = (one, other) => contrast(parse(one).rgb, parse(other).rgb);
  return { contrast: contrastOf, pale, cutOff, outside, toTheTop, ring, moving, drawn };
})()
