"""Somebody is told when the run ends or needs them: by a webhook, a command, or both.

Nothing here may touch the run. Both go out from threads of their own, which neither hold the event loop up nor keep the
process alive; what fails becomes an event of the log. Who has a webhook's address can post to it, and a command may
hold a token: neither is ever shown, in no log and in no error.
"""

from pipeline.notify.notifier import KINDS, QUIET_S, Notifier
from pipeline.notify.webhook import slack_body
