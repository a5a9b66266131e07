// Sorts, filters and searches the lists of the page. Texts of the data are only ever set as text.
"use strict";
(() => {
  const words = (text) => text.normalize("NFKC").toLowerCase().split(/\s+/).filter(Boolean);
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  let pageWords = [];

  function make(name, className, text) {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text) element.textContent = text;
    return element;
  }

  function later(work) {
    let timer = 0;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(work, 120);
    };
  }

  function searchField(label, onInput) {
    const field = make("input");
    field.type = "search";
    field.placeholder = label;
    field.setAttribute("aria-label", label);
    field.addEventListener("input", later(onInput));
    return field;
  }

  // a list is a table, or galleries, or pairs
  function setUp(list) {
    const table = list.tagName === "TABLE" ? list : null;
    const holder = table ? table.tBodies[0] : list;
    const items = [...holder.querySelectorAll(":scope > [data-item]")].map((element, place) => ({ element, place, text: null }));
    const tools = make("div", "tools");
    const nothing = make("p", "empty", "Nothing matches.");
    const count = make("span", "said");
    const tests = [];
    let listWords = [];
    nothing.hidden = true;
    count.setAttribute("role", "status");

    const value = (item, name) => {
      if (!table) return item.element.dataset[name];
      const cell = item.element.cells[Number(name)];
      return cell.dataset.value ?? cell.textContent.trim();
    };

    function filter() {
      let n = 0;
      for (const item of items) {
        if (item.text === null) item.text = item.element.textContent.normalize("NFKC").toLowerCase();
        const isShown = listWords.every((word) => item.text.includes(word)) && pageWords.every((word) => item.text.includes(word)) && tests.every((test) => test(item));
        item.element.hidden = !isShown;
        n += isShown;
      }
      nothing.hidden = n > 0 || items.length === 0;
      count.textContent = n === items.length ? `${n.toLocaleString("en")}` : `${n.toLocaleString("en")} of ${items.length.toLocaleString("en")}`;
      return n;
    }

    function sort(compare) {
      const order = [...items].sort((one, other) => compare(one, other) || one.place - other.place);
      holder.append(...order.map((item) => item.element));
    }

    function by(name, sign) {
      sort((one, other) => {
        const a = value(one, name), b = value(other, name);
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
        const x = Number(a), y = Number(b);
        return sign * (a !== "" && b !== "" && Number.isFinite(x) && Number.isFinite(y) ? x - y : collator.compare(a, b));
      });
    }

    if (!("nosearch" in list.dataset)) {
      const field = searchField("Search here", () => {
        listWords = words(field.value);
        filter();
      });
      tools.append(field);
    }
    for (const choice of (list.dataset.choices || "").split(",").filter(Boolean)) {
      const [name, label] = choice.split(":");
      const select = make("select");
      select.setAttribute("aria-label", label);
      select.append(new Option(`any ${label}`, ""));
      for (const text of [...new Set(items.map((item) => value(item, name)))].sort(collator.compare)) select.append(new Option(text, text));
      select.addEventListener("change", filter);
      tests.push((item) => select.value === "" || value(item, name) === select.value);
      if (select.options.length > 2) tools.append(select);
    }
    for (const least of (list.dataset.least || "").split(",").filter(Boolean)) {
      const [name, label] = least.split(":");
      const field = make("input", "least");
      field.type = "number";
      field.min = "0";
      field.setAttribute("aria-label", label);
      const around = make("label", "", `${label} `);
      around.append(field);
      field.addEventListener("input", later(filter));
      tests.push((item) => field.value === "" || Number(value(item, name)) >= Number(field.value));
      tools.append(around);
    }
    if (list.dataset.sorts) {
      const select = make("select");
      select.setAttribute("aria-label", "order");
      select.append(new Option("in the order of the report", ""));
      for (const entry of list.dataset.sorts.split(",")) {
        const [name, label, sign] = entry.split(":");
        if (items.some((item) => value(item, name) !== undefined)) select.append(new Option(`${label} first`, `${name}:${sign}`));
      }
      select.addEventListener("change", () => {
        const [name, sign] = select.value.split(":");
        if (name) by(name, Number(sign));
        else sort(() => 0);
      });
      if (select.options.length > 2) tools.append(select);
    }
    if (table && table.tHead) {
      [...table.tHead.rows[0].cells].forEach((head, column) => {
        const button = make("button", "", head.textContent);
        button.type = "button";
        head.replaceChildren(button);
        head.setAttribute("aria-sort", "none");
        button.addEventListener("click", () => {
          const isNumber = head.classList.contains("num") || head.classList.contains("wide");
          const was = head.getAttribute("aria-sort");
          const isDown = was === "none" ? isNumber : was === "ascending";
          for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
          head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
          by(String(column), isDown ? -1 : 1);
        });
      });
    }
    if (items.length > 1 && tools.childElementCount) {
      tools.append(count);
      const scroll = table ? table.closest(".scroll") : list;
      scroll.before(tools);
      scroll.after(nothing);
    }
    filter();
    return { list, filter };
  }

  const lists = [...document.querySelectorAll("[data-list]")].map(setUp);
  const field = searchField("Search everything", () => {
    pageWords = words(field.value);
    const nOfSection = new Map();
    for (const { list, filter } of lists) {
      const section = list.closest("section");
      nOfSection.set(section.id, (nOfSection.get(section.id) || 0) + filter());
      const folded = list.closest("details");
      if (folded && pageWords.length) folded.open = true;
    }
    for (const link of document.querySelectorAll("nav li a")) {
      const n = nOfSection.get(link.hash.slice(1));
      link.classList.toggle("without", pageWords.length > 0 && !n);
      if (pageWords.length && n) link.dataset.found = n.toLocaleString("en");
      else delete link.dataset.found;
    }
  });
  document.getElementById("find").append(field);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.ctrlKey && !event.metaKey && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      event.preventDefault();
      field.focus();
    }
  });

  // lays the first picture of a pair on the second, as they were registered: by turns, or as their difference
  function layOver(pair) {
    const [first, second] = pair.querySelectorAll(".picture img");
    if (!first || !second) return;
    const map = pair.dataset.overlay.split(" ").map(Number);
    const bar = make("p", "overlay");
    const stage = make("div", "stage");
    stage.hidden = true;
    let timer = 0, shown = "";
    const over = first.cloneNode();
    function place() {
      const width = stage.clientWidth, height = width * second.naturalHeight / second.naturalWidth;
      stage.style.height = `${height}px`;
      for (const picture of stage.children) { picture.style.width = `${width}px`; picture.style.height = `${height}px`; }
      const [a, b, c, d, e, f] = map;
      over.style.transform = `matrix(${a}, ${d * height / width}, ${b * width / height}, ${e}, ${c * width}, ${f * height})`;
    }
    function show(way) {
      clearInterval(timer);
      shown = shown === way ? "" : way;
      stage.hidden = !shown;
      if (!stage.childElementCount) stage.append(second.cloneNode(), over);
      over.style.visibility = "";
      stage.classList.toggle("difference", shown === "difference");
      if (shown) place();
      if (shown === "flicker") timer = setInterval(() => { over.style.visibility = over.style.visibility ? "" : "hidden"; }, 600);
      for (const button of bar.children) button.setAttribute("aria-pressed", String(button.textContent === shown));
    }
    for (const way of ["flicker", "difference"]) {
      const button = make("button", "", way);
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => show(way));
      bar.append(button);
    }
    pair.append(bar, stage);
  }
  for (const pair of document.querySelectorAll(".pair[data-overlay]")) layOver(pair);

  // marks the section in view
  const links = new Map([...document.querySelectorAll("nav li a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  for (const section of document.querySelectorAll("main > section")) seen.observe(section);

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
})();
