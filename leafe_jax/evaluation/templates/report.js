const armsData = readData('arms-data');
let passkWidth = 0;
if (armsData.length) new ResizeObserver(() => {
  const width = byId('passk').clientWidth;
  if (width === passkWidth) return;
  passkWidth = width;
  drawPassk(byId('passk'), armsData);
}).observe(byId('passk'));

const spelt = readData('tokens-data');
/* Everything is in the page, as far as there was room for it. */
function entryOf(tree, i) {
  const branches = tree.nodes.filter((node) => node.parent !== undefined).length;
  return {...tree, nodes: undefined, title: tree.instruction || tree.id, source: tree.arm === undefined ? 'Exploration' : tree.arm,
    episodes: tree.nodes.length, branches, text: JSON.stringify(tree).toLowerCase(),
    load: () => tree, tokens: () => spelt[i] && {nodes: spelt[i], note: ''}};
}
const everyTree = [...readData('trees-data'), ...readData('transcripts-data')].map(entryOf);
if (everyTree.length) startBrowser(everyTree);
