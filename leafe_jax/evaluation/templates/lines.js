/* Small charts of scalars: one per name, a line per run. */
const shownFirst = /(^|\/)(loss|success|score|solved|success_rate|kl|entropy|grad_norm)$/;

function niceNumber(value) {
  const size = Math.abs(value);
  if (size >= 1e4 || (size < 1e-3 && size > 0)) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

/* lines: [{color, name, points: [[step, value or null]]}] */
function drawLines(title, lines) {
  const width = 320, height = 132, pad = {left: 44, right: 8, top: 8, bottom: 20};
  const points = lines.flatMap((line) => line.points.filter(([, value]) => value !== null));
  if (!points.length) return html('figure', {class: 'lines'}, html('h3', {}, title), html('p', {class: 'note'}, 'not a finite number yet'));
  const steps = points.map(([step]) => step), values = points.map(([, value]) => value);
  const low = Math.min(...values), high = Math.max(...values);
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  const [bottom, top] = [low - margin, high + margin];
  const [start, end] = [Math.min(...steps), Math.max(...steps)];
  const x = (step) => pad.left + (step - start) / ((end - start) || 1) * (width - pad.left - pad.right);
  const y = (value) => pad.top + (top - value) / (top - bottom) * (height - pad.top - pad.bottom);
  const path = (line) => {
    let pen = 'M';
    return line.points.map(([step, value]) => {
      if (value === null) { pen = 'M'; return ''; }
      const part = `${pen}${x(step).toFixed(1)},${y(value).toFixed(1)}`;
      pen = 'L';
      return part;
    }).join('');
  };
  const ticks = [low, (low + high) / 2, high].slice(0, high > low ? 3 : 1);
  const picture = svg('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `${title} by step`},
    ticks.map((value) => [
      svg('line', {class: 'grid-line', x1: pad.left, x2: width - pad.right, y1: y(value), y2: y(value)}),
      svg('text', {class: 'tick', x: pad.left - 6, y: y(value) + 4, 'text-anchor': 'end'}, niceNumber(value))]),
    [start, end].slice(0, end > start ? 2 : 1).map((step, i) =>
      svg('text', {class: 'tick', x: x(step), y: height - 3, 'text-anchor': i ? 'end' : 'start'}, step)),
    lines.map((line) => svg('path', {style: `stroke:${line.color}`, d: path(line)})));
  const last = lines.map((line) => line.points.findLast(([, value]) => value !== null)).filter(Boolean);
  const told = html('b', {}, last.map(([, value]) => niceNumber(value)).join('  '));
  const rest = told.textContent;
  const guide = svg('line', {class: 'guide', y1: pad.top, y2: height - pad.bottom, visibility: 'hidden'});
  picture.append(guide);
  picture.addEventListener('pointermove', (event) => {
    const box = picture.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * width;
    const step = steps.reduce((a, b) => Math.abs(x(a) - at) < Math.abs(x(b) - at) ? a : b);
    guide.setAttribute('x1', x(step));
    guide.setAttribute('x2', x(step));
    guide.setAttribute('visibility', 'visible');
    const found = lines.map((line) => line.points.find(([s]) => s === step)).filter((point) => point && point[1] !== null);
    told.textContent = `${step}: ` + found.map(([, value]) => niceNumber(value)).join('  ');
  });
  picture.addEventListener('pointerleave', () => { guide.setAttribute('visibility', 'hidden'); told.textContent = rest; });
  return html('figure', {class: 'lines'}, html('h3', {}, title, told), picture);
}
