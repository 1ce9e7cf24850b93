"""Every JSON that a command may write; what is not here, `Output.json` does not take."""

from smn_cli.schemas.adapter_files import (
    ApplyJson,
    DiffJson,
    ExportJson,
    InspectJson,
    MergeJson,
    PackJson,
    VerifyJson,
)
from smn_cli.schemas.hub import PullJson, PushJson
from smn_cli.schemas.images import DataJson, EmbedJson
from smn_cli.schemas.runs import AdaptJson, CascadeJson, DemoJson, PlanJson
from smn_cli.schemas.scores import EvalJson

CommandJson = (
    AdaptJson
    | PlanJson
    | EvalJson
    | EmbedJson
    | PackJson
    | ApplyJson
    | InspectJson
    | VerifyJson
    | DiffJson
    | MergeJson
    | PushJson
    | PullJson
    | ExportJson
    | CascadeJson
    | DataJson
    | DemoJson
)
