'use strict';

// Figures: data and layout stand beside each as JSON.
const config = {responsive: true, displayModeBar: false};
for (const figure of document.querySelectorAll('figure')) {
  const {data, layout} = JSON.parse(figure.querySelector('script').textContent);
  Plotly.newPlot(figure.querySelector('.plot'), data, layout, config);
}

// The course of training against steps or seconds.
for (const button of document.querySelectorAll('.choice button')) {
  button.addEventListener('click', () => {
    const axis = button.dataset.axis;
    for (const other of document.querySelectorAll('.choice button')) {
      other.setAttribute('aria-pressed', String(other.dataset.axis === axis));
    }
    for (const plot of document.querySelectorAll('figure.course .plot')) {
      const x = plot.data.map(trace => trace.meta[axis] || []);
      Plotly.update(plot, {x}, {'xaxis.title.text': axis === 'step' ? 'step' : 'seconds', 'xaxis.autorange': true});
    }
  });
}

// Tables: a click on a heading sorts, a second one reverses. Missing values stay last.
function sorted(rows, place, sign) {
  const numbers = new Intl.Collator(undefined, {numeric: true});
  const keyed = rows.map(row => {
    const text = row.cells[place].dataset.sort;
    return {row, text, value: text === undefined || text === '' ? NaN : Number(text)};
  });
  const numeric = keyed.every(({text, value}) => text === undefined || !Number.isNaN(value));
  keyed.sort((one, other) => {
    if (one.text === undefined || other.text === undefined) {
      return (one.text === undefined) - (other.text === undefined);
    }
    return sign * (numeric ? one.value - other.value : numbers.compare(one.text, other.text));
  });
  return keyed.map(({row}) => row);
}
for (const table of document.querySelectorAll('table')) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, place) => heading.addEventListener('click', event => {
    if (!(event.target instanceof HTMLButtonElement)) {
      return;
    }
    const before = heading.getAttribute('aria-sort');
    const first = heading.classList.contains('number') ? 'descending' : 'ascending';
    const next = before === null ? first : before === 'ascending' ? 'descending' : 'ascending';
    headings.forEach(other => other.removeAttribute('aria-sort'));
    heading.setAttribute('aria-sort', next);
    const body = table.tBodies[0];
    body.append(...sorted([...body.rows], place, next === 'ascending' ? 1 : -1));
  }));
}

// Fields that filter the rows of their table.
for (const field of document.querySelectorAll('.above input')) {
  const body = field.closest('.table').querySelector('tbody');
  field.addEventListener('input', () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(word => word);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
  });
}
