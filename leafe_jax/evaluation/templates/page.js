const byId = (id) => document.getElementById(id);
const readData = (id) => JSON.parse(byId(id).textContent);
const svgNamespace = byId('namespace').namespaceURI;

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'style') node.style.cssText = value; // an attribute would need a laxer policy
    else node.setAttribute(name, value);
  }
  // append() makes text nodes of strings: run data never becomes markup.
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const html = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(svgNamespace, tag), attributes, children);

function setTheme(theme) {
  document.documentElement.style.colorScheme = theme === 'system' ? '' : theme;
  byId('theme').textContent = 'Theme: ' + theme;
  byId('theme').dataset.theme = theme;
}
const themes = ['system', 'light', 'dark'];
setTheme('system');
byId('theme').addEventListener('click', () => {
  setTheme(themes[(themes.indexOf(byId('theme').dataset.theme) + 1) % 3]);
});
