// What a page shows that a reader could not read. Looked for by browser.py in the page itself.

// What is wider than the page and stands in nothing that scrolls.
function overflowing() {
  const page = document.documentElement, found = [];
  if (page.scrollWidth > page.clientWidth) found.push(`page ${page.scrollWidth} > ${page.clientWidth}`);
  const scrolls = one => ["auto", "scroll", "hidden"].includes(getComputedStyle(one).overflowX);
  const within = one => one && (scrolls(one) || within(one.parentElement));
  for (const one of document.body.querySelectorAll("*")) {
    const box = one.getBoundingClientRect();
    if (box.width && box.height && box.right > page.clientWidth + 1 && box.left < page.clientWidth && !within(one))
      found.push(`${one.tagName}.${one.className} to ${Math.round(box.right)}`);
  }
  return found.slice(0, 5);
}

// Text whose contrast with what is behind it is below 3 (WCAG 2.1).
function unreadable() {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const numbers = colour => {
    if (known.has(colour)) return known.get(colour);
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    known.set(colour, [...pen.getImageData(0, 0, 1, 1).data]);
    return known.get(colour);
  };
  const linear = value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = colour => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => sum + part * linear(colour[i] / 255), 0);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const canvas = dark && getComputedStyle(document.documentElement).colorScheme.includes("dark") ? 18 : 255;
  const behind = one => {
    if (!one) return [canvas, canvas, canvas];
    const colour = numbers(getComputedStyle(one).backgroundColor);
    return colour[3] > 127 ? colour : behind(one.parentElement);
  };
  const found = new Set();
  for (const one of document.body.querySelectorAll("*")) {
    const text = [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    if (!text || !box.width || box.height < 4 || style.visibility === "hidden") continue;
    if (one.closest("svg, script, style, template")) continue;
    const [a, b] = [light(numbers(style.color)), light(behind(one))].sort((x, y) => y - x);
    const ratio = ((a + 0.05) / (b + 0.05)).toFixed(1);
    if (ratio < 3) found.add(`${one.tagName}.${one.className} ${ratio}: ${one.textContent.trim().slice(0, 30)}`);
  }
  return [...found].slice(0, 5);
}
