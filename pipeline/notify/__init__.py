"""Notifies somebody when the run ends or needs them: by a webhook, a command, or both.

Nothing here may affect the run. Both run in threads of their own, which neither block the event loop nor keep the
process alive. Failures become events of the log. Anyone with a webhook's address can post to it, and a command may
contain a token, so neither appears in any log or error.
"""

from pipeline.notify.notifier import KINDS, QUIET_S, Notifier
from pipeline.notify.webhook import slack_body
