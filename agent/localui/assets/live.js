// Keeps the page fresh, and says so when it is not. Without it the page reloads itself.
(function () {
  'use strict';
  var every = 3000, patience = 12000;
  var last = Date.now(), stale = document.getElementById('stale');

  function clock(ms) {
    var d = new Date(ms), two = function (n) { return (n < 10 ? '0' : '') + n; };
    return two(d.getHours()) + ':' + two(d.getMinutes()) + ':' + two(d.getSeconds());
  }

  // Only parts that changed are replaced: what a person has opened, marked or focused elsewhere stays.
  function replace(part, fresh) {
    if (part.innerHTML === fresh.innerHTML && part.className === fresh.className) { return; }
    var open = Array.prototype.map.call(part.querySelectorAll('details[open]'), function (d) { return d.id; });
    part.className = fresh.className;
    part.innerHTML = fresh.innerHTML;
    open.forEach(function (id) {
      var d = id && document.getElementById(id);
      if (d) { d.open = true; }
    });
  }

  function show(html) {
    var fresh = new DOMParser().parseFromString(html, 'text/html');
    var parts = document.querySelectorAll('[data-live]');
    if (!fresh.querySelector('[data-live]')) { throw new Error('not the page'); }
    parts.forEach(function (part) {
      var f = fresh.querySelector('[data-live="' + part.getAttribute('data-live') + '"]');
      if (f) { replace(part, f); }
    });
    document.title = fresh.title;
  }

  function judge() {
    var old = Date.now() - last > patience;
    document.body.classList.toggle('stale', old);
    stale.hidden = !old;
    if (old) {
      var text = 'This page is stale since ' + clock(last) + ': the agent does not answer. What you see below is old.';
      if (stale.textContent !== text) { stale.textContent = text; }
      document.title = 'STALE · ' + document.title.replace(/^STALE · /, '');
    }
  }

  function fresh() {
    var stop = new AbortController(), limit = setTimeout(function () { stop.abort(); }, 8000);
    fetch(location.pathname, { signal: stop.signal, cache: 'no-store' })
      .then(function (r) { if (!r.ok) { throw new Error(r.status); } return r.text(); })
      .then(function (html) { show(html); last = Date.now(); })
      .catch(function () { })
      .then(function () { clearTimeout(limit); judge(); setTimeout(fresh, every); });
  }

  setTimeout(fresh, every);
  setInterval(judge, 1000);
})();
