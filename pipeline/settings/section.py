"""The base of all tables of the config."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, JsonValue, StringConstraints

from pipeline.settings import checks
from pipeline.settings.checks import Takes

Text = Annotated[str, StringConstraints(min_length=1), Takes("text that is not empty")]
Path = Annotated[Text, BeforeValidator(checks.as_plain), Takes("the path of a folder")]
Json = Annotated[JsonValue, Takes("a value that JSON has too")]
Texts = Annotated[list[str], BeforeValidator(checks.as_plain), AfterValidator(checks.distinct)]


class Section(BaseModel):
    """A table of the config. It is frozen and strict, and refuses unknown keys."""

    # `mistakes` reports errors; pydantic's own would repeat the value, which may be a secret.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)
