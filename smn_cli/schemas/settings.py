"""The settings of a run as JSON: `plan` of `smn plan`, and of a run folder's `config.json`."""

from typing import Annotated

from typing_extensions import TypedDict


class ViewsJson(TypedDict):
    """Random views that an image gives in every step; areas are fractions of the image, probabilities 0 to 1."""

    num_global: Annotated[int, "large views an image"]
    global_size: Annotated[int, "their side in pixels: the working size"]
    global_area: Annotated[list[float], "least and most"]
    num_local: Annotated[int, "small views an image"]
    local_size: Annotated[int, "their side in pixels"]
    local_area: Annotated[list[float], "least and most"]
    jitter: Annotated[list[float], "brightness, contrast, saturation, hue, in torchvision's meaning"]
    jitter_probability: Annotated[float, "of that jitter"]
    grey_probability: Annotated[float, "of losing all colour"]
    blur_probability: Annotated[float, "of a Gaussian blur"]
    blur_sigma: Annotated[list[float], "least and most, in pixels"]
    flip_probability: Annotated[float, "of a mirror image"]
    aspect: Annotated[list[float], "width over height of a view, least and most"]
    from_centre_square: Annotated[bool, "whether views are cut from the central square, as evaluation sees the image"]
    solarize_probability: Annotated[float, "of inverting bright pixels"]


class SettingsJson(TypedDict):
    """Everything that determines a run, besides the backbone and the images."""

    recipe: Annotated[str, "`default`, `swav` or `paper`"]
    train: Annotated[str, "`mask`, or a baseline: `norm`, `full`, `head`"]
    objective: Annotated[str, "`neighbourhood`, `taught`, `swapped` or `supervised`"]
    keep: Annotated[str, "`best` or `last`: which state the run keeps"]
    views: Annotated[ViewsJson, "what images are cut into"]
    teachers: Annotated[
        list[str], "of `neighbourhood`: `stages`, `last`, or a timm model as NAME[@SIZE][=FILE]; else empty"
    ]
    witness: Annotated[str, "independent model that judges, as NAME[@SIZE][=FILE]; empty for none"]
    teacher_size: Annotated[int, "side in pixels of what the frozen network sees"]
    batch_size: Annotated[int, "images a step"]
    num_steps: Annotated[int, "length of the run"]
    steps_per_epoch: Annotated[int, "steps of one pass over the images"]
    num_holdout: Annotated[int, "images that are never trained on, for the judge"]
    eval_every: Annotated[int, "steps between two judgements"]
    warmup_steps: Annotated[int, "steps in which the learning rate rises"]
    head_steps: Annotated[int, "first steps, in which the head learns alone"]
    num_prototypes: Annotated[int, "of the self-supervised loss; 0 with labels, and where neighbourhoods are learned"]
    prototype_freeze_steps: Annotated[int, "first steps, in which prototypes stay"]
    queue_length: Annotated[int, "embeddings kept for the codes"]
    queue_start_step: Annotated[int, "step from which the queue is used"]
    embedding_dim: Annotated[int, "width of the embeddings"]
    temperature: Annotated[float, "of the predictions"]
    epsilon: Annotated[float, "of the codes: the smaller, the sharper"]
    sinkhorn_iterations: Annotated[int, "that make the codes"]
    score_init: Annotated[str, "`constant`, `magnitude` or `kaiming`"]
    score_start: Annotated[float, "factor on the scores at the start; with `constant`, their value"]
    threshold: Annotated[float, "a weight is kept while its score is above it"]
    score_optimizer: Annotated[str, "`sgd` or `adam`"]
    score_momentum: Annotated[float, "of that optimizer, 0 to 1"]
    lr_scores: Annotated[float, "highest learning rate of the scores; with `train` `full`, of the weights"]
    lr_head: Annotated[float, "highest learning rate of the head"]
    head_momentum: Annotated[float, "of the head's optimizer, 0 to 1"]
    head_constant_decay: Annotated[float, "constant added to every gradient of the head"]
    lr_period: Annotated[str, "`step` or `epoch`: how often the learning rates change"]
    include_depthwise: Annotated[bool, "whether depthwise convolutions are masked"]
    include_stem: Annotated[bool, "whether the first layer is masked"]
    mask_also: Annotated[list[str], "patterns of further parameters that are masked"]
    norm_stats: Annotated[str, "`frozen` or `adapt`"]
    seed: Annotated[int, "two runs with one seed are equal"]
    precision: Annotated[str, "`fp32` or `bf16`"]
    compile: Annotated[bool, "whether the network is compiled"]
    grad_checkpoint: Annotated[bool, "whether activations are computed twice, to save memory"]
    num_classes: Annotated[int, "of the labels; 0 without labels"]
    label_fraction: Annotated[float | None, "share of the labeled images used; null for all"]
    mask_kind: Annotated[str, "`threshold` or `topk`"]
    density: Annotated[float | None, "fraction that `topk` keeps of every tensor; null with a threshold"]
    density_start: Annotated[float | None, "fraction that it starts from; null to start at `density`"]
    mask_only: Annotated[list[str], "`--mask-only`: which weights may be cut; empty for all"]
    cached_views: Annotated[
        int, "draws of an image's views whose activations before the first trained block are kept; 0 if none are"
    ]
    cached_bytes: Annotated[int, "that they take at most"]
    training_images: Annotated[int, "images drawn to train on, where that is fewer than the steps could take; else 0"]
    reasons: Annotated[dict[str, str], "why settings that nobody asked for are what they are, by dotted name"]
