"""What can be measured of a page's looks: contrast, text that is cut off, rings around what has the focus.

Each function looks at what is visible in a page now and returns what is wrong, in words; an empty list is good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

MIN_CONTRAST, MIN_RING_CONTRAST = 4.5, 3.0

# WCAG 2.2: relative luminance and contrast ratio. A colour that is partly transparent lies on what is behind it.
COLOURS = r"""
const parse = (text) => {
  const numbers = text.match(/[\d.]+(e-?\d+)?/g).map(Number);
  const scale = text.startsWith("color(") ? 255 : 1;
  if (!/^(rgba?|color\(srgb )/.test(text)) throw Error(`what colour is ${text}?`);
  return { rgb: numbers.slice(0, 3).map((one) => one * scale), alpha: numbers[3] ?? 1 };
};
const over = (top, alpha, below) => top.map((one, i) => one * alpha + below[i] * (1 - alpha));
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((one) => one / 255).map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [dark, bright] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (bright + 0.05) / (dark + 0.05);
};
const canvas = () => (getComputedStyle(document.documentElement).colorScheme.includes("dark") ? [18, 18, 18] : [255, 255, 255]);
const background = (element) => { // what is behind the text of an element
  if (!element) return canvas();
  const style = getComputedStyle(element);
  if (style.backgroundImage !== "none") throw Error(`a picture is behind the text of ${element.outerHTML.slice(0, 80)}`);
  const own = parse(style.backgroundColor);
  return own.alpha === 1 ? own.rgb : over(own.rgb, own.alpha, background(element.parentElement));
};
const opacity = (element) => (element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1);
const name = (element) => `${element.tagName.toLowerCase()}${element.id && "#" + element.id}.${[...element.classList].join(".")}`;
const isShown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
const top_ = () => document.querySelector("dialog[open]") ?? document.body; // a dialog makes the rest inert
"""

TEXTS = r"""
const texts = () => { // visible elements with text of their own, and that text
  const found = [];
  const walker = document.createTreeWalker(top_(), NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (node.data.trim() && !["SCRIPT", "STYLE", "OPTION"].includes(element.tagName) && isShown(element)) found.push([element, node]);
  }
  return found;
};
"""

PALE = r"""
(least) => {
  const pale = [];
  const check = (element, colour, said) => {
    const behind = background(element), own = parse(colour);
    const ratio = contrast(over(own.rgb, own.alpha * opacity(element), behind), behind);
    if (ratio < least) pale.push(`${ratio.toFixed(2)} ${name(element)}: ${said.trim().slice(0, 40)}`);
  };
  const seen = texts();
  for (const [element, node] of seen) check(element, getComputedStyle(element).color, node.data);
  for (const field of [...top_().querySelectorAll("textarea, input:not([type=radio]), select")].filter(isShown)) {
    const part = field.value || !field.placeholder ? null : "::placeholder";
    check(field, getComputedStyle(field, part).color, field.value || field.placeholder || "");
  }
  return [seen.length, pale];
}
"""

# Text has to lie within each box around it, unless the box scrolls; what is scrolled away is reached by scrolling.
CUT_OFF = r"""
() => {
  const slack = 1.5, wrong = [];
  const next = (element) => {
    const place = getComputedStyle(element).position;
    if (place === "fixed") return null;
    return place === "absolute" ? element.offsetParent : element.parentElement;
  };
  const whole = (element) => element.title && element.title.includes(element.textContent.trim());
  const outside = (box, element) => { // why a line of text cannot be read whole, if so
    for (let around = element; around && around !== document.documentElement; around = next(around)) {
      const style = getComputedStyle(around);
      if (style.display === "contents" || style.display === "inline") continue;
      const edge = around.getBoundingClientRect();
      const wide = box.left < edge.left - slack || box.right > edge.right + slack;
      const tall = box.top < edge.top - slack || box.bottom > edge.bottom + slack;
      const scrolls = (axis) => ["auto", "scroll"].includes(style[axis]);
      if (wide && !scrolls("overflowX") && !(style.textOverflow === "ellipsis" && whole(around))) return `wider than ${name(around)}`;
      if (tall && ["hidden", "clip"].includes(style.overflowY)) return `taller than ${name(around)}`;
      if (wide && scrolls("overflowX") || tall && scrolls("overflowY")) return "";
      if (wide) return "";
    }
    return box.left < -slack || box.right > innerWidth + slack || box.top < -slack || box.bottom > innerHeight + slack
      ? "outside the window" : "";
  };
  for (const [element, node] of texts()) {
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {
      const why = box.width > 1 && outside(box, element);
      if (why) { wrong.push(`${why}: ${name(element)}: ${node.data.trim().slice(0, 40)}`); break; }
    }
  }
  for (const field of document.querySelectorAll("textarea, select"))
    if (isShown(field) && field.scrollWidth > field.clientWidth + slack) wrong.push(`text of ${name(field)} is too wide`);
  if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is wider than the window");
  return wrong;
}
"""

RING = r"""
(least) => { // of what has the focus: how it is called, and what is wrong with its ring
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const shown = element.closest(".option, .bin, .reason") ?? element; // radio buttons are drawn by their labels
  const style = getComputedStyle(shown);
  const called = `${name(element)} ${element.value ?? ""} ${element.innerText ?? ""}`.slice(0, 60);
  if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2) return [called, "no ring"];
  const ratio = contrast(parse(style.outlineColor).rgb, background(shown.parentElement));
  return [called, ratio < least ? `a ring of contrast ${ratio.toFixed(2)}` : ""];
}
"""


def contrast(page: Page, one: str, other: str) -> float:
    """Contrast ratio of two colours in CSS's computed notation."""
    return float(page.evaluate(f"([one, other]) => {{ {COLOURS} return contrast(parse(one).rgb, parse(other).rgb) }}", [one, other]))


def pale_texts(page: Page) -> list[str]:
    """Visible text of too little contrast; some text has to be visible."""
    seen, pale = page.evaluate(f"(least) => {{ {COLOURS} {TEXTS} return ({PALE})(least) }}", MIN_CONTRAST)
    assert seen, "there is no text"
    return list(pale)


def cut_off_texts(page: Page) -> list[str]:
    """Visible text that cannot be read whole, not even by scrolling a part of the page."""
    return list(page.evaluate(f"() => {{ {COLOURS} {TEXTS} return ({CUT_OFF})() }}"))


def tab_through(page: Page, at_most: int = 120) -> dict[str, str]:
    """Press Tab from the beginning until the focus leaves the page; what had the focus -> what is wrong with its ring."""
    page.evaluate("() => { document.activeElement?.blur(); getSelection().removeAllRanges(); }")
    found: dict[str, str] = {}
    for _ in range(at_most):
        page.keyboard.press("Tab")
        stop = page.evaluate(f"(least) => {{ {COLOURS} return ({RING})(least) }}", MIN_RING_CONTRAST)
        if stop is None or stop[0] in found:
            return found
        found[stop[0]] = stop[1]
    raise AssertionError(f"the focus does not come to an end after {at_most} stops")


def outside_window(page: Page, selector: str) -> str:
    """Why an element is not wholly in the window without scrolling; empty if it is."""
    box = page.locator(selector).bounding_box()
    size = page.viewport_size
    assert size is not None
    if box is None:
        return f"{selector} is not visible"
    inside = box["x"] >= 0 and box["y"] >= 0
    inside = inside and box["x"] + box["width"] <= size["width"] and box["y"] + box["height"] <= size["height"]
    return "" if inside else f"{selector} is at {box} in {size}"


def first_paint_ms(page: Page) -> float:
    """From the start of the navigation to the first content on the screen, as the browser itself noted it."""
    return float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
