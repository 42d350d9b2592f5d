"""All words that annotators, reviewers and admins read, but for guidelines and training examples.

One section for each place where they stand: the annotation page, what its script says, sign-in and the pages of
reviewers and admins, the quality report. What is in braces is filled in where the text is used.
"""

from __future__ import annotations

from alignment.data.records import Dimension, Grade, SafetyBin
from annotation_ui.vocabulary import AccountRole, Flag, Kind, Phase

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
KIND_NAMES: dict[Kind, str] = {"work": "", "training": "Training", "qualification": "Qualification test"}
KIND_HINTS: dict[Kind, str] = {
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

# -- what page.js says, and the answers of the server to it -----------------------------------------------------------

SCRIPT = {
    "chooseFirst": "Choose an answer first: press 1 to 8.",
    "safetyFirst": "Say which answers are safe: press Q, W, E or R.",
    "notOpen": "There is nothing to judge now.",
    "judgeFirst": "Judge this pair first, or skip it (S).",
    "wait": "Wait until both answers have ended.",
    "guidelinesChanged": "The guidelines have changed. Read them before you go on.",
    "ready": "Both answers are complete. Press 1 to 8, then Enter.",
    "saving": "Saving…",
    "cleared": "You changed sides, so please answer the safety question again.",
    "willBeFlagged": "Will be flagged: preferring the unsafe answer is left out of training data.",
    "skipReason": "Choose a reason: press 1 to 7.",
    "writePrompt": "Write a prompt first.",
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
