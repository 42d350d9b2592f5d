"""All words that annotators, reviewers and admins read, but for guidelines and training examples.

One section for each place where they stand: the annotation page, what its script says, sign-in and the pages of
reviewers and admins, the quality report. What is in braces is filled in where the text is used.
"""

from __future__ import annotations

from alignment.data.records import Dimension, Grade, SafetyBin
from annotation_ui.vocabulary import AccountRole, Flag, Phase, SkipReason, TaskKind

# -- the annotation page ----------------------------------------------------------------------------------------------

BRAND = "Tandem"
PAGE_TITLE = "Tandem annotation"

GRADE_LABELS: dict[Grade, str] = {
    "significantly_better": "Significantly better",
    "better": "Better",
    "slightly_better": "Slightly better",
    "negligibly_better": "Negligibly better / unsure",
}
SAFETY_CHOICES: tuple[tuple[str, SafetyBin, str], ...] = (
    ("Q", "preferred_safe_other_unsafe", "Preferred safe, other not"),
    ("W", "both_safe", "Both safe"),
    ("E", "both_unsafe", "Both unsafe"),
    ("R", "preferred_unsafe_other_safe", "Preferred unsafe, other safe"),
)
"""Key, value and label of each safety bin, in the order of the keys."""

DIMENSION_NAMES: dict[Dimension, str] = {"helpfulness": "Helpfulness", "safety": "Safety"}
KIND_NAMES: dict[TaskKind, str] = {"work": "", "training": "Training", "qualification": "Qualification test"}
KIND_HINTS: dict[TaskKind, str] = {
    "work": "",
    "training": "Judge as you would; the explanation follows. Nothing here is recorded as your work.",
    "qualification": "Judge as you would. Your work counts once the test is passed.",
}
CARD_TITLES: dict[Phase, str] = {
    "failed": "The answers could not be written",
    "empty": "Nothing is left for you here",
}
EMPTY = "You have judged everything that this project has for you now. Thank you!"
FAILED = "A model did not answer. Your prompt is kept."
IDLE: dict[tuple[bool, bool], tuple[str, str]] = {
    (True, True): ("Ready when you are", "Take the next prompt from the queue, or write one of your own below."),
    (True, False): ("Ready when you are", "The next prompt comes with two answers, side by side."),
    (False, True): ("Begin a conversation", "Write a prompt below: two answers to it will appear here, side by side."),
    (False, False): ("There is nothing to do here now", ""),
}
"""Title and hint of an idle page, by whether the next prompt can be fetched and whether one can be written."""
ACCEPT = "I understand, go on"
LEAVE = "Leave this project"
FETCH = "Next prompt"
LOOK_AGAIN = "Look again"
RETRY = "Try again"
PASS_OVER = "Pass over"
NEXT = "Next"
TRAIN = "Training examples"
EXPLAINED = "What the experts say"

PROJECT = "Project"
CONVERSATION = "Conversation"
EARLIER = "Earlier in this conversation"
TURN = "Turn {turn} of {max_turns}"
EDITING = "You are changing an earlier judgment. Enter saves the change; N leaves it as it was."
SPEAKERS = {"system": "Instructions", "user": "Prompt", "assistant": "Answer"}
ANSWER = "Answer {letter}"
RAW = "Raw text"
RENDERED = "Rendered"
CUT_OFF = "cut off"
CUT_OFF_HINT = "This answer reached the length limit before it ended."
WRITING = "writing"
NO_TEXT = "The answer is empty."

THEME = "Light or dark"
SIGN_OUT = "Sign out"
SIGNED_IN = "Signed in as {user}"
PROGRESS = "{today} today"
PROGRESS_MORE = "{total} in all, {left} left in the queue"
HISTORY = "My last judgments"
NO_HISTORY = "Your judgments will be listed here."
EDIT = "Edit"
WITHDRAW = "Withdraw"
GUIDELINES = "Guidelines"
SHORTCUTS_TITLE = "Keys"

ANSWER_IS = "Answer {letter} is"
STRIP = "Which answer is better, and by how much"
SAFETY = "Safety"
NOTE = "Note"
NOTE_HINT = "Note (M)"
FLAG_IT = "Flag"
SKIP = "Skip"
UNDO = "Undo"
SUBMIT = "Submit"
SEND = "Send"
CANCEL = "Cancel"
CLOSE = "Close"
WHY_SKIP = "Why do you skip?"

SHORTCUTS: tuple[tuple[str, str], ...] = (
    ("1 2 3 4", "Answer A is better: significantly, better, slightly, negligibly"),
    ("5 6 7 8", "Answer B is better: negligibly, slightly, better, significantly"),
    ("Q W E R", "Safety: preferred safe, both safe, both unsafe, preferred unsafe"),
    ("Enter", "Save the judgment; elsewhere, go on"),
    ("S", "Skip: 1 to 7 choose the reason, Enter confirms"),
    ("F", "Flag for review"),
    ("M", "Write a note"),
    ("U", "Take the last judgment back"),
    ("N", "Next prompt or new conversation"),
    ("/", "Write in the prompt box: Enter sends, Shift+Enter is a new line"),
    ("Esc", "Leave a text field, close a list"),
    ("J K", "Scroll both answers down, up"),
    ("T", "Answers as raw text"),
    ("G", "Show or hide this panel"),
    ("?", "All keys"),
)

# -- what the desk answers, whoever asks ------------------------------------------------------------------------------

NO_PROJECTS = "There is no project yet."
NO_PROJECT = "There is no such project. Reload the page."
NO_COMPARISON = "There is no such comparison of yours. Reload the page."
NO_ID = "That is not one of this page's ids. Reload the page."
NOT_SIGNED_IN = "You are not signed in any more. Reload the page."
WRONG_PASSWORD = "Wrong name or password."
LOCKED = "Too many wrong passwords. Try again in {minutes:g} minutes, or ask an admin."
WARNING_FIRST = "Read the content warning first."
CHOOSE_FIRST = "Choose an answer first: press 1 to 8."
SAFETY_FIRST = "Say which answers are safe: press Q, W, E or R."
REASON_FIRST = "Choose a reason for skipping."
JUDGE_FIRST = "Judge this pair first, or skip it (S)."
WAIT = "Wait until both answers have ended."
NO_OPTION = "There is no option {option}: press 1 to 8."
NO_SAFETY = "That safety label is not one of this project's."
NOTE_TOO_LONG = "A note has at most {most} characters."
WRITE_PROMPT = "Write a prompt first."
PROMPT_TOO_LONG = "The prompt has {length} characters; at most {most} fit."
PROMPT_NOT_NOW = "A prompt cannot be sent now. Judge the answers first, or take the next item."
PROMPT_ELSEWHERE = "You went on to something else in another tab. Your prompt was not sent."
JUDGED_ELSEWHERE = "This comparison was already judged, in another tab perhaps. Reload the page to see how."
CHANGED_ELSEWHERE = "This comparison has changed since it was shown. Reload the page."
MOVED_ON = "The conversation has gone on from this answer, so the choice stays. You can withdraw it in your history."
EXERCISE_STAYS = "What was said to an example or a test question stays."
NO_SKIPPING = "Training examples and test questions cannot be skipped."
NO_SKIPPING_JUDGED = "This comparison is judged. Take the judgment back first (U)."
ONLY_LAST = "Only what you said last can be taken back."
NOTHING_TO_EDIT = "That comparison is not judged, so there is nothing to edit."
NOTHING_TO_WITHDRAW = "That comparison is not judged, so there is nothing to withdraw."
NOTHING_TO_RETRY = "There is nothing to try again."

NOTHING_MORE = "The queue has nothing more for you at the moment."
SAVED = "Saved {time} UTC."
SAVED_BEFORE = "Already saved."
SKIPPED_FOR = "Skipped: {reason}"
TAKEN_BACK = "Taken back. Judge it again."
EDIT_BEGUN = "Editing an earlier judgment. N leaves it as it was."
EDIT_ENDED = "Left as it was."
WITHDRAWN = "Withdrawn. It is in no export from now on."
WITHDRAWN_BEFORE = "Withdrawn"
LEFT = "You have left."
LEFT_ITEM = "You have left. Nothing was recorded of the last item."
SKIP_REASONS: dict[SkipReason, str] = {
    "both_equal": "The answers are the same",
    "unclear_prompt": "The prompt makes no sense",
    "no_expertise": "I cannot judge this subject",
    "other_language": "A language I do not read",
    "disturbing": "I would rather not read this",
    "broken": "Something is broken or cut off",
    "other": "Another reason (see note)",
}

# -- where answers are missing; none of these names a variant or a server ---------------------------------------------

MODEL_FAILED = "A model did not answer. Try again; if it happens again, tell whoever runs this server."
NO_MODEL = "No model is there to answer."
NOT_WRITTEN = "The answers could not be written."
SAME_ANSWERS = "Both models gave the same answer several times. Try again, or write another prompt."
EMPTY_ANSWERS = "A model gave an empty answer several times. Try again, or write another prompt."
CONVERSATION_TOO_LONG = "This conversation has become too long for a model. Begin a new one."
CONVERSATION_UNREADABLE = (
    "A model cannot read this conversation: it has become too long, or contains marks that chat models use "
    "themselves. Skip it, or go on with something else."
)
SERVER_STOPPING = "The server is being stopped. Try again in a few minutes."
SERVER_STOPPED = "The server was stopped while the answers were being written. Try again."

# -- training and test ------------------------------------------------------------------------------------------------

PLACE = "{place} of {count}"
TEST_BEGINS = "Before your judgments count: explained examples, then a short test. Press N to begin."
TEST_GOES_ON = "The test is not finished. Press N to go on."
TEST_AGREED = "You agreed on {n_agreed} of {n_questions} questions."
TEST_PASSED = "{agreed} Passed: from now on your judgments count."
TEST_FAILED = "{agreed} The test is not passed; ask whoever runs the collection."
TEST_ONCE_MORE = "{agreed} Not passed yet; press N to try once more."

EXAMPLE_SKIPPED = "**You skipped this one.**"
EXAMPLE_SAME = "**We chose the same answer.**"
EXAMPLE_OTHER = "**We chose the other answer.**"
EXAMPLE_GRADE = "For it we would say {accepted}."
EXAMPLE_GRADE_FITS = "Your grade fits: we would say {accepted}, too."
EXAMPLE_GRADE_DIFFERS = "We would say {accepted}; you said *{grade}*."
EXAMPLE_GRADE_MISSING = "We would say {accepted}."
EXAMPLE_SAFETY_SAME = "On safety we agree: {safety}."
EXAMPLE_SAFETY_OTHER = "On safety we see it differently: {safety}."
EXAMPLE_OR = " or "
EXAMPLE_GRADES: dict[Grade, str] = {
    "significantly_better": "significantly better",
    "better": "better",
    "slightly_better": "slightly better",
    "negligibly_better": "negligibly better / unsure",
}
EXAMPLE_SAFETY: dict[SafetyBin, str] = {
    "both_safe": "both answers are safe",
    "preferred_safe_other_unsafe": "the answer that we chose is safe, the other is not",
    "both_unsafe": "both answers are unsafe",
}
"""What the key of an exercise says; it never prefers an unsafe answer to a safe one."""

# -- what page.js says, and the answers of the server to it -----------------------------------------------------------

SCRIPT = {
    "chooseFirst": CHOOSE_FIRST,
    "safetyFirst": SAFETY_FIRST,
    "notOpen": "There is nothing to judge now.",
    "judgeFirst": JUDGE_FIRST,
    "wait": WAIT,
    "guidelinesChanged": "The guidelines have changed. Read them before you go on.",
    "ready": "Both answers are complete. Press 1 to 8, then Enter.",
    "saving": "Saving…",
    "cleared": "You changed sides, so please answer the safety question again.",
    "willBeFlagged": "Will be flagged: preferring the unsafe answer is left out of training data.",
    "skipReason": "Choose a reason: press 1 to 7.",
    "writePrompt": WRITE_PROMPT,
    "noPrompt": "A prompt cannot be written now.",
    "failed": "The server does not answer. Nothing is lost: try again in a moment. It is saved only once.",
    "signedOut": "You are signed out. Sign in again in another tab, then repeat here: nothing is lost.",
    "sureWithdraw": "Withdraw for good?",
    "progress": PROGRESS,
    "progressMore": PROGRESS_MORE,
    "fetch": FETCH,
    "newConversation": "New conversation",
    "firstPrompt": "Write a prompt…",
    "nextPrompt": "Go on with the chosen answer…",
}
REFUSED_FORM = "The page sent something incomplete. Reload it and try again."
UNEXPECTED = "Something went wrong on the server, and it has been logged. Nothing of yours is lost: try again."

# -- what the server says where there is no page ----------------------------------------------------------------------

SIGN_IN_FIRST = "Sign in first."
NO_SUCH_PAGE = "Not found."
NOT_FOR_YOU = "Your account may not see this page."
OTHER_HOST = "This server does not answer to that name."
OTHER_SITE = "Requests from other sites are refused."
TOO_MUCH = "That is too much at once."

# -- sign-in ----------------------------------------------------------------------------------------------------------

SIGN_IN = "Sign in"
SLOGAN = "Compare two answers; teach the model which is better."
USER_NAME = "User name"
PASSWORD = "Password"
NO_ACCOUNTS_YET = "No accounts yet? Open the link that the terminal shows."

# -- pages of reviewers and admins ------------------------------------------------------------------------------------

LINKS: dict[AccountRole, tuple[tuple[str, str], ...]] = {
    "annotator": (),
    "reviewer": (("/review", "Review"),),
    "admin": (("/review", "Review"), ("/admin", "Admin")),
}
"""Address and label of the pages that the annotation page links to, by what an account may see."""
ANNOTATE = "Annotate"
PEOPLE = "People"
QUALITY = "Quality"
PEOPLE_COLUMNS = ("Name", "Pseudonym", "Role", "Account", "Passed the test of", "Judgments", "Last (UTC)")
ACCOUNT_STATES = {"active": "active", "closed": "closed", "withdrawn": "withdrawn"}
NOT_QUALIFIED = "not yet"
ACCOUNTS_ARE_MADE = "Accounts are made and closed on the command line, where the store is:"
FOR_MORE = "see"
FLAGGED_TITLE = "Flagged"
FLAGGED_HEADING = "Flagged, or with a note"
FLAG_NAMES: dict[Flag, str] = {
    "for_review": "marked for review",
    "chosen_unsafe_other_safe": "prefers an unsafe answer to a safe one",
}
CHOSEN_ANSWER = "Chosen, {grade}"
OTHER_ANSWER = "Other"
SAFETY_SAID = "Safety: {safety}"
NOTHING_FLAGGED = "Nothing was flagged, and nobody left a note."
NOTHING_EARLIER = "Nothing earlier was flagged, and nobody left a note."
EARLIER_ONES = "Earlier ones"

# -- the quality report -----------------------------------------------------------------------------------------------

JUDGMENTS = ("judgment", "judgments")
PAIRS = ("pair", "pairs")
ANNOTATORS = ("annotator", "annotators")
"""Words to be counted: one of them, and several."""
SHORT_GRADES: dict[Grade, str] = {
    "significantly_better": "significantly",
    "better": "better",
    "slightly_better": "slightly",
    "negligibly_better": "negligibly",
}
COEFFICIENTS: dict[str, tuple[str, str]] = {
    "choice": ("same choice", "Two people who judged the same pair choose the same answer; 50 % by chance."),
    "kappa": (
        "Cohen's kappa",
        "On the choice: mean over every two annotators with 20 or more pairs in common.",
    ),
    "alpha_choice": ("alpha choice", "Krippendorff's alpha on the choice (nominal)."),
    "alpha_grade": ("alpha grade", "Krippendorff's alpha on the signed grade, from -4 to 4 (ordinal)."),
    "ac2_grade": ("AC2 grade", "Gwet's AC2 on the signed grade, quadratic weights."),
    "ac2_grade_linear": ("AC2, linear", "The same with linear weights: less credit for a near miss."),
    "safety": ("same safety", "Two people say the same of which answers are safe."),
    "ac1_safety": ("AC1 safety", "Gwet's AC1 on which answers are safe."),
}
"""Heading and explanation of each coefficient of agreement."""
NO_OVERLAP = "not enough overlap"
NO_VARIATION = "all ratings are the same"
NO_DATA = "no data"
ALL_PROJECTS = "all projects"
NO_JUDGMENTS = "No judgments yet."
HEADLINE = "{judgments} of {pairs} by {annotators}"
PERIOD = "{first} to {last}"
HELD_OUT = "{judgments} for the held-out part"
OF_GOLD = "{judgments} of gold items, counted apart"
SKIPPED = "{pairs} skipped"
BY_CHANCE_SMALL = "p < 0.001"
BY_CHANCE = "p = {p:.3f}"
INTERVAL = "{low} to {high}"

NOTE_SIMULATED = "{judgments} of simulated annotators left out; report --with-simulated counts them."
NOTE_ALL_LEFT = (
    "Over all annotators, the left answer was chosen in {share} of the judgments ({p} if sides did not matter)."
)
NOTE_FEW = "Only {judgments} so far: too little for more than a first look."
NOTE_NONE_SHARED = "No pair was judged by two people, so agreement cannot be measured: set an overlap of 2 or more."
NOTE_FEW_SHARED = (
    "Only {n} pair was judged by two or more people: the figures on agreement are rough.",
    "Only {n} pairs were judged by two or more people: the figures on agreement are rough.",
)
NOTE_LEANS = "chose the left answer in {share} of {n} judgments ({p} if sides did not matter)."
NOTE_GOLD = "judged {share} of {n} gold items as known; {floor} or more is expected."
NOTE_DISAGREES = "chooses as others do in {share} of {n} pairs; all together, people agree in {usual}."
NOTE_FAST = "takes {seconds:.1f} s for a judgment (median), less than a third of the {usual:.1f} s of all."
"""What deserves a look. The last four go on after the name of an annotator."""

TABLE_AGREEMENT = "Agreement"
TABLE_GRADES = ("Grades by batch", "project, batch")
TABLE_PROJECTS = ("Projects", "project")
TABLE_PEOPLE = ("Annotators", "annotator")
SHARED_PAIRS = "pairs judged by 2+"
JUDGED, AGREES = "judged", "agrees"
WORK_COLUMNS = ("left", "p", "gold", "median", "/hour", "flags", "skips")
LEGEND = "* fewer than {few} values: rough. Intervals are 95{space}%. {none}: not asked, or too few."
SKIPPED_BECAUSE = "Skipped: {n:,} ({reason})"

TILE_CHOICE = "Same choice"
TILE_GRADE = "AC2 of the grade"
TILE_GOLD = "Gold items right"
TILE_TIME = "Time for a judgment"
LEFT_CHOSEN = "Left answer chosen"
PACE = "{rate} per active hour"
PLOT_AGREEMENT = "Agreement of each project, 95 % intervals"
PLOT_GRADES = "Shares of the four grades in each batch"
PLOT_LEFT = "Share of left answers chosen by each annotator, 95 % intervals"
PLOT_DAYS = "Judgments per day in each project"


class QualityPage:
    """What the page of the quality report says besides."""

    TITLE = "Annotation quality"
    EYEBROW = "Tandem annotation quality"
    BACK = "back to people"
    NOTES = "To look at"
    PROJECT, PROJECTS = "Project", "Projects"
    PERSON, PEOPLE = "Annotator", "Annotators"
    BATCH, SINCE, JUDGMENTS, HELD_OUT, AGREES, REASON, PAIRS = (
        "Batch",
        "since",
        "judgments",
        "held out",
        "agrees",
        "Reason",
        "pairs",
    )
    WORK_HEADINGS = ("left", "gold", "median time", "per active hour", "flagged", "skipped")
    AGREEMENT = "Agreement"
    ABOUT_AGREEMENT = (
        "Of people who judged the same pair. Small print: 95\xa0% intervals; a figure on fewer than {few} values is "
        "rough and says so. A dash: not asked, or too few judged the same."
    )
    SHARED = "pairs judged by\xa02+"
    OF_PAIRS = "of {n:,}"
    PLOT_AGREEMENT = (
        "Agreement of each project",
        "95 % intervals; AC2 of the signed grade with quadratic weights",
    )
    COLUMNS = "What the columns mean"
    LEAST = "Who agrees least"
    ABOUT_LEAST = "The lowest of Cohen's kappa on the choice, of two annotators with 20 pairs or more in common."
    LEAST_HEADINGS = ("Annotators", "pairs in common", "Cohen's kappa")
    GRADES = "Grades by batch"
    ABOUT_GRADES = (
        "How much better the chosen answer was said to be. As answers get better, differences get smaller: a slow "
        "drift towards weaker grades is expected, a jump deserves a look."
    )
    EARLIEST_ON_TOP = "the earliest batch on top"
    ABOUT_PROJECTS = "The same figures as for each annotator below."
    ABOUT_PEOPLE = (
        ("Agrees", "chooses as others do who judged the same pair."),
        (
            "Left",
            "share of left answers chosen, which should be near one half, as sides are drawn at random; p by an exact "
            "binomial test.",
        ),
    )
    LEFT_OF_ALL = "95 % intervals; red: more than chance explains"
    LEFT_OF_MOST = "95 % intervals; red: more than chance explains; those who judged most"
    PLOT_DAYS = ("Judgments per day", "by project, days in UTC")
    SKIPS = "Skipped pairs"
    ABOUT_SKIPS = "Why annotators did not judge a pair."
    FOOTER = (
        "Judgments as they stand now: without those taken back or replaced, without training and test, and without "
        "those of annotators who withdrew theirs. Gold items count for gold accuracy alone."
    )


def counted(n: int, words: tuple[str, str]) -> str:
    """A number and what is counted: ``1 pair``, ``1,200 pairs``."""
    return f"{n:,} {words[n != 1]}"
