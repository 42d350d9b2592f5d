// What the annotation page does in the browser: keys, the judging bar, active time, theme, and what is sent to the server.
//
// The server sends HTML for what changes and a state object through `attach`'s `watch`; nothing is decided here that the
// server does not check again. Nothing is kept in localStorage. sessionStorage holds what was typed and not sent yet, so
// that a lost connection loses nothing; cookies hold the theme and whether the side panel is shown.
const tandem = (() => {
  "use strict";
  const TEXTS = TANDEM_TEXTS;
  const IDLE_MS = 60_000; // without input for so long, time stops counting
  const RESEND_MS = 3_000; // an action that was not answered for so long may be sent again
  const AFTER_SAVE_MS = 400; // an Enter so soon after a save was meant for the save
  const DEPENDS_ON_SIDE = ["preferred_safe_other_unsafe", "preferred_unsafe_other_safe"];
  const page = document.documentElement;
  const narrow = matchMedia("(max-width: 960px)"); // as in page.css
  const find = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];

  let raise = () => {}; // raises an event of Gradio
  let view = null; // what is on the desk
  let has = {}; // which parts the page shows, in the server's words
  let guidelines = {}; // which ones the page shows: of what project, and their hash
  let method = "mouse"; // how the option was chosen
  let lastInput = "mouse";
  let savedAt = -Infinity;
  let answeredAt = -Infinity;
  let following = null; // the comparison whose answers are followed while they are written
  let drafts = {}; // what was not sent yet: judgments by submission, prompts by where they were written
  const outgoing = {};
  const pending = {}; // actions that were not answered yet, and since when

  // -- time ---------------------------------------------------------------------------------------------------------

  const clock = {
    total: 0, counted: 0, input: 0, visible: true,
    count() { // add what was active since the last call: visible, and at most a minute after the last input
      const now = performance.now();
      if (this.visible) this.total += Math.max(0, Math.min(now, this.input + IDLE_MS) - this.counted);
      this.counted = now;
      this.visible = !document.hidden;
    },
    touch() { this.count(); this.input = performance.now(); },
    start(milliseconds) { this.touch(); this.total = milliseconds; },
    read() { this.count(); return Math.round(this.total); },
  };

  // -- cookies, and what was not sent yet ---------------------------------------------------------------------------

  const cookie = (name) => document.cookie.split("; ").find((one) => one.startsWith(`${name}=`))?.split("=")[1];
  const setCookie = (name, value) => { document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=lax`; };

  const promptPlace = () => `${view.project}/${view.comparison_id ?? ""}`;

  function remember() {
    if (!view) return;
    if (view.phase === "open") drafts[view.submission_id] = { ...judgment(), method };
    if (view.may_prompt) drafts[promptPlace()] = find("#prompt").value;
    keepDrafts();
  }

  const keepDrafts = () => sessionStorage.setItem("drafts", JSON.stringify(drafts));

  function recall(user) {
    drafts = JSON.parse(sessionStorage.getItem("drafts") ?? "{}");
    if (drafts.user !== user) drafts = { user };
  }

  function forget(action) { // what was saved is no draft any more
    delete drafts[outgoing[action]?.submission_id];
    if (action === "ask") delete drafts[promptPlace()];
    if (action === "leave" || (action === "fetch" && view?.editing)) delete drafts[view.submission_id];
  }

  // -- talking to the server ----------------------------------------------------------------------------------------

  function act(name, more = {}) { // one thing at a time; returns whether it was sent
    const at = performance.now();
    if (Object.values(pending).some((since) => at - since < RESEND_MS)) return false;
    pending[name] = at;
    send(name, more);
    setTimeout(() => { if (pending[name] === at) failed(name); }, RESEND_MS);
    return true;
  }

  function send(name, more) {
    outgoing[name] = { project: view?.project ?? null, has, ...more };
    raise(`desk_${name}`);
  }

  function follow() {
    if (following === view.comparison_id) return;
    following = view.comparison_id;
    send("watch", { comparison_id: following });
  }

  const parcel = (name) => outgoing[name]; // what Gradio sends along
  const start = () => act("view", { project: new URLSearchParams(location.search).get("project") });

  async function failed(name) {
    const at = performance.now();
    delete pending[name];
    const answer = await fetch("config").catch(() => null);
    if (answeredAt > at) return; // it came after all
    say(answer?.status === 401 ? TEXTS.signedOut : TEXTS.failed, "error");
    showProject();
    if (name === "watch") setTimeout(lookAgain, 1000);
  }

  function lookAgain() {
    following = null;
    if (view?.phase === "generating") act("view");
  }

  function attach(names, props, trigger, watch) {
    raise = trigger;
    watch("value", () => receive(props.value));
  }

  function receive(state) {
    if (!state?.stamp) return;
    delete pending[state.action];
    answeredAt = performance.now();
    if (!state.view && !view && outgoing.view?.project) { // no such project: go where one was last
      act("view", { project: null });
      return;
    }
    if (state.view && JSON.stringify(state.base) !== JSON.stringify(has)) { // it came late: parts may be missing
      has = {};
      act("view", { project: state.view.project });
      return;
    }
    if (state.view) {
      remember();
      if (state.level !== "error") forget(state.action);
      has = state.has;
      show(state.view);
    }
    showProject();
    const time = /(\d\d):(\d\d):(\d\d) UTC/;
    say((state.message ?? "").replace(time, (_, h, m, s) => localTime(h, m, s)), state.level);
    if (state.level === "saved") savedAt = performance.now();
    if (!state.message && view?.phase === "open" && state.view) say(TEXTS.ready);
    if (state.view) showGuidelines(state.action === "view");
  }

  function showGuidelines(came) { // only a whole view brings them along; they can change while a page is open
    const { project, guidelines_sha256: sha256 } = view;
    const changed = guidelines.project === project && guidelines.sha256 !== sha256;
    if (came) guidelines = { project, sha256 };
    if (changed && came) say(TEXTS.guidelinesChanged);
    if (changed && !came) act("view");
  }

  function listen(props, watch) {
    watch("value", () => props.value?.stamp && grow(props.value));
  }

  function grow({ follows, answers, message }) { // only while this comparison is on the desk, not to be judged yet
    if (message) {
      say(message, "error");
      setTimeout(lookAgain, 1000);
      return;
    }
    if (!answers && following === follows) following = null;
    if (view?.phase !== "generating" || view.comparison_id !== follows) return;
    if (!answers) {
      act("view");
      return;
    }
    all(".pane").forEach((pane, number) => {
      const grown = new DOMParser().parseFromString(answers[number], "text/html").querySelector(".pane");
      [...grown.children].forEach((part, place) => {
        if (pane.children[place].innerHTML !== part.innerHTML) pane.children[place].innerHTML = part.innerHTML;
      });
    });
  }

  function localTime(hours, minutes, seconds) {
    const at = new Date();
    at.setUTCHours(hours, minutes, seconds);
    return at.toTimeString().slice(0, 8);
  }

  // -- showing a view -----------------------------------------------------------------------------------------------

  function show(next) {
    const before = view;
    view = next;
    if (!before) recall(view.user);
    page.dataset.phase = view.phase;
    page.dataset.dimension = view.dimension;
    const fresh = !before || before.comparison_id !== view.comparison_id || before.editing !== view.editing;
    const opened = view.phase === "open" && (fresh || before.phase !== "open" || before.submission_id !== view.submission_id);
    if (opened || view.phase !== "open") fillBar();
    if (fresh) all(".pane .body, .talk .past").forEach((box) => { box.scrollTop = 0; });
    showComposer();
    showProgress();
    closeReasons();
    find("#judging").disabled = view.phase !== "open";
    find("#undo").disabled = !view.undoable;
    find("#skip").disabled = view.kind !== "work" || view.editing;
    if (fresh || view.phase !== before.phase) document.activeElement?.blur(); // so that the keys work at once
    if (view.phase === "generating") follow();
    setTimeout(localTimes);
    keepDrafts();
    const address = new URL(location);
    address.searchParams.set("project", view.project);
    history.replaceState(null, "", address);
  }

  function fillBar() {
    const unsent = view.phase === "open" ? drafts[view.submission_id] : null;
    const complete = ["open", "judged", "explained"].includes(view.phase);
    const draft = unsent ?? (complete ? view.draft : {});
    check("option", draft.option);
    check("safety", draft.safety);
    find("#note").value = draft.note ?? "";
    setFlag(Boolean(draft.flagged));
    find(".bins").hidden = !view.asks_safety;
    method = unsent?.method ?? "mouse";
    clock.start(unsent?.active_ms ?? 0);
    nameSides();
  }

  function showComposer() {
    const prompt = find("#prompt");
    prompt.value = (view.may_prompt && drafts[promptPlace()]) || "";
    prompt.maxLength = view.max_prompt_chars;
    prompt.placeholder = view.phase === "judged" ? TEXTS.nextPrompt : TEXTS.firstPrompt;
    find("#composer .box").hidden = !view.may_prompt;
    find("#onward").hidden = view.phase !== "judged";
    find("#onward span").textContent = view.may_prompt ? TEXTS.newConversation : TEXTS.fetch;
    find("#composer").hidden = !view.may_prompt && view.phase !== "judged";
    count();
  }

  function showProgress() {
    const { today, total, left_in_queue: left } = view.progress;
    const fill = (text) => text.replace("{today}", today).replace("{total}", total).replace("{left}", left);
    setTimeout(() => {
      find("#progress").textContent = fill(TEXTS.progress);
      find("#progress").title = fill(TEXTS.progressMore);
    });
  }

  function showProject() { // where another one was chosen and did not come
    const choice = find("select.project");
    if (choice && view) choice.value = view.project;
  }

  function localTimes() {
    for (const time of all("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (!isNaN(at)) time.textContent = at.toTimeString().slice(0, 5);
    }
  }

  function say(message, level = "info") {
    page.dataset.phase ??= "none"; // until then, the page is hidden
    const line = find("#status");
    line.textContent = message;
    line.dataset.level = level;
  }

  // -- judging ------------------------------------------------------------------------------------------------------

  const chosen = (name) => find(`input[name=${name}]:checked`)?.value ?? null;
  const check = (name, value) => all(`input[name=${name}]`).forEach((one) => { one.checked = one.value === String(value ?? ""); });
  const sideOf = (option) => (option === null ? null : Number(option) <= 4 ? "A" : "B");

  function judgment() {
    return {
      option: chosen("option") === null ? null : Number(chosen("option")),
      safety: view.asks_safety ? chosen("safety") : null,
      note: find("#note").value,
      flagged: find("[data-do=flag]").getAttribute("aria-pressed") === "true",
      active_ms: clock.read(),
    };
  }

  let side = null; // of the option chosen before
  function optionChanged() {
    const now = sideOf(chosen("option"));
    const turned = side !== null && now !== side;
    method = lastInput;
    say("");
    if (turned && DEPENDS_ON_SIDE.includes(chosen("safety"))) {
      check("safety", null);
      say(TEXTS.cleared, "error");
    }
    nameSides();
    remember();
  }

  function safetyChanged() {
    say(chosen("safety") === "preferred_unsafe_other_safe" ? TEXTS.willBeFlagged : "");
    remember();
  }

  function nameSides() { // "preferred" is A or B once a side is chosen
    side = sideOf(chosen("option"));
    const other = side === "A" ? "B" : "A";
    const said = (value) => (value === DEPENDS_ON_SIDE[0] ? `${side} safe, ${other} not` : `${side} unsafe, ${other} safe`);
    for (const value of DEPENDS_ON_SIDE) find(`input[name=safety][value=${value}] ~ span small`).textContent = side ? said(value) : "";
  }

  function choose(name, value) {
    if (view?.phase !== "open") return say(view?.phase === "generating" ? TEXTS.wait : TEXTS.notOpen);
    if (name === "safety" && !view.asks_safety) return undefined;
    check(name, value);
    return name === "option" ? optionChanged() : safetyChanged();
  }

  function setFlag(on) {
    find("[data-do=flag]").setAttribute("aria-pressed", String(on));
  }

  function submit() {
    const given = judgment();
    if (given.option === null) return say(TEXTS.chooseFirst, "error");
    if (view.asks_safety && given.safety === null) return say(TEXTS.safetyFirst, "error");
    say(TEXTS.saving);
    const { comparison_id, submission_id } = view;
    const how = { input_method: method, guidelines_sha256: guidelines.sha256 };
    return act("submit", { comparison_id, submission_id, ...given, ...how });
  }

  // -- skipping -----------------------------------------------------------------------------------------------------

  const reasonsOpen = () => !find("#reasons").hidden;

  function openReasons() {
    if (view?.phase !== "open" || find("#skip").disabled) return;
    check("reason", null);
    find("#reasons").hidden = false;
    find("#reasons").focus();
  }

  function closeReasons() {
    if (reasonsOpen() && find("#reasons").contains(document.activeElement)) document.activeElement.blur();
    find("#reasons").hidden = true;
  }

  function skip() {
    const reason = chosen("reason");
    if (reason === null) return say(TEXTS.skipReason, "error");
    const { comparison_id, submission_id } = view;
    const { note, active_ms } = judgment();
    return act("skip", { comparison_id, submission_id, reason, note, active_ms });
  }

  function passOver() { // what cannot be answered
    const { comparison_id, submission_id } = view;
    return act("skip", { comparison_id, submission_id, reason: "broken" });
  }

  // -- everything else that can be done -----------------------------------------------------------------------------

  function count() {
    const prompt = find("#prompt");
    find("#counter").textContent = `${prompt.value.length} / ${view?.max_prompt_chars ?? ""}`;
  }

  function ask() {
    const text = find("#prompt").value;
    if (!view.may_prompt) return say(TEXTS.noPrompt);
    if (!text.trim()) return say(TEXTS.writePrompt, "error");
    return act("ask", { text, comparison_id: view.comparison_id });
  }

  function onEnter() { // with the focus on nothing in particular
    const complete = view?.phase === "open" && chosen("option") !== null;
    if (!complete && performance.now() - savedAt < AFTER_SAVE_MS) return undefined;
    const does = { open: submit, warning: () => act("accept"), failed: () => act("retry"), explained: next, idle: next };
    if (view?.phase === "judged") return view.may_prompt ? find("#prompt").focus() : next();
    if (view?.phase === "generating") return say(TEXTS.wait);
    return does[view?.phase]?.();
  }

  function next() {
    if (view.may_fetch || view.editing) act("fetch");
    else if (view.may_prompt) find("#prompt").focus();
    else if (view.phase === "open") say(TEXTS.judgeFirst);
  }

  function withdraw(button) { // asks once more, in place
    if (button.dataset.sure) return act("retract", { comparison_id: button.dataset.comparison });
    const { textContent, ariaLabel } = button;
    const name = (text, spoken) => { button.textContent = text; button.ariaLabel = spoken; };
    button.dataset.sure = "yes";
    name(TEXTS.sureWithdraw, TEXTS.sureWithdraw);
    say(TEXTS.sureWithdraw);
    button.focus();
    const calm = () => { delete button.dataset.sure; name(textContent, ariaLabel); };
    return button.addEventListener("blur", calm, { once: true });
  }

  function setTheme(theme) {
    page.dataset.theme = theme;
    document.body?.classList.toggle("dark", theme === "dark");
  }

  function turnTheme() {
    const theme = page.dataset.theme === "dark" ? "light" : "dark";
    setTheme(theme);
    setCookie("theme", theme);
  }

  function toggle(name) {
    page.toggleAttribute(`data-${name}`);
  }

  function toggleSide() {
    const hide = getComputedStyle(find("#side")).display !== "none";
    page.dataset.side = hide ? "hidden" : "shown";
    if (!narrow.matches) setCookie("side", page.dataset.side);
  }

  // Narrow windows begin without the panel, whatever was chosen on a wide one.
  function setSide() {
    if (!narrow.matches && cookie("side")) page.dataset.side = cookie("side");
    else delete page.dataset.side;
  }

  function toggleHelp() {
    const help = find("dialog#help");
    if (help.open) help.close(); else help.showModal();
  }

  function scrollAnswers(direction) {
    for (const body of all(".pane .body")) body.scrollBy({ top: direction * body.clientHeight * 0.8, behavior: "smooth" });
  }

  async function logout() {
    const answer = await fetch("logout", { method: "POST", redirect: "manual" }).catch(() => null);
    if (!answer) return say(TEXTS.failed, "error");
    view = null; // so that nothing is remembered any more
    sessionStorage.clear();
    return location.assign("login");
  }

  const DOES = {
    submit, skip: openReasons, "pass-over": passOver, "skip-confirm": skip, "skip-cancel": closeReasons, ask, next, logout,
    undo: () => view?.undoable && act("undo", { comparison_id: view.undoable }),
    fetch: () => act("fetch"), retry: () => act("retry"), accept: () => act("accept"),
    leave: () => act("leave"), train: () => act("train"),
    edit: (button) => act("edit", { comparison_id: button.dataset.comparison }),
    retract: withdraw,
    flag: () => { setFlag(!judgment().flagged); remember(); },
    raw: () => toggle("raw"), guidelines: toggleSide, help: toggleHelp, theme: turnTheme,
  };

  // -- keys and clicks ----------------------------------------------------------------------------------------------

  const KEYS = {
    s: () => (view?.phase === "failed" ? passOver() : openReasons()), u: () => DOES.undo(), n: next, t: DOES.raw, g: toggleSide, "?": toggleHelp,
    f: () => view?.phase === "open" && DOES.flag(),
    m: () => view?.phase === "open" && find("#note").focus(),
    "/": () => (view?.may_prompt ? find("#prompt").focus() : say(TEXTS.noPrompt)),
    j: () => scrollAnswers(1), k: () => scrollAnswers(-1), enter: onEnter,
  };
  const SAFETY_KEYS = "qwer";

  const isTyping = (element) => Boolean(element?.closest?.("textarea, select, [contenteditable], input:not([type=radio])"));
  const hasOwnEnter = (element) => Boolean(element?.closest?.("button, a, summary"));

  function onKey(event) {
    lastInput = "keyboard";
    clock.touch();
    if (event.key !== "Enter") savedAt = -Infinity; // an Enter after this key is for what the key did
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat || !view) return;
    if (find("dialog#help").open) {
      onKeyInHelp(event);
      return;
    }
    if (isTyping(event.target)) {
      onKeyInField(event);
      return;
    }
    if (event.key === "Enter" && hasOwnEnter(event.target)) return;
    const does = reasonsOpen() ? reasonKey(event.key) : deskKey(event.key);
    if (!does) return;
    event.preventDefault();
    does();
  }

  function onKeyInHelp(event) {
    if (!["Escape", "?"].includes(event.key)) return;
    event.preventDefault();
    toggleHelp();
  }

  function onKeyInField(event) {
    if (event.key === "Escape") event.target.blur();
    if (event.key !== "Enter" || event.shiftKey || event.target.id !== "prompt") return;
    event.preventDefault();
    ask();
  }

  function deskKey(name) {
    if (/^[1-8]$/.test(name)) return () => choose("option", name);
    const lower = name.toLowerCase();
    const bin = SAFETY_KEYS.indexOf(lower);
    if (lower.length === 1 && bin >= 0) return () => choose("safety", all("input[name=safety]")[bin].value);
    return KEYS[lower];
  }

  function reasonKey(name) {
    const reasons = all("input[name=reason]");
    if (/^[1-9]$/.test(name) && reasons[name - 1]) return () => { check("reason", reasons[name - 1].value); };
    return { Enter: skip, Escape: closeReasons, s: closeReasons }[name];
  }

  function onClick(event) {
    const button = event.target.closest?.("[data-do]");
    if (!button || button.disabled) return;
    if (event.detail > 0 && !button.dataset.comparison) button.blur(); // so that Enter submits, not presses it again
    DOES[button.dataset.do]?.(button);
  }

  function onChange({ target }) {
    if (target.name === "option") optionChanged();
    if (target.name === "safety") safetyChanged();
    if (target.dataset?.change === "project") {
      target.blur();
      if (!act("view", { project: target.value })) showProject();
    }
  }

  function onInput({ target }) {
    if (target.id === "prompt") count();
    if (["prompt", "note"].includes(target.id)) remember();
  }

  document.addEventListener("keydown", onKey, true);
  document.addEventListener("click", onClick);
  document.addEventListener("change", onChange);
  document.addEventListener("input", onInput);
  document.addEventListener("pointerdown", () => { lastInput = "mouse"; }, true);
  for (const name of ["pointerdown", "pointermove", "wheel"]) document.addEventListener(name, () => clock.touch(), { passive: true });
  document.addEventListener("visibilitychange", () => clock.count());
  addEventListener("pagehide", remember);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(cookie("theme") ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => { if (!cookie("theme")) setTheme(dark.matches ? "dark" : "light"); });
  setSide();
  narrow.addEventListener("change", setSide);

  return { attach, listen, start, parcel, failed };
})();
