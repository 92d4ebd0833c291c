"""`MoltcConfig`: the contents of a checkpoint's ``config.json``."""

from __future__ import annotations

from typing import Any, Literal, get_args

from transformers import AutoConfig, PretrainedConfig

from moltc_vllm.tasks import PromptStyle, get_style
from moltc_vllm.tasks.prompt_style import MOLTC_STYLE
from moltc_vllm.utils.standardization import Standardization, check_standardization

ProjectorSharing = Literal["shared", "role", "task_role"]

SymmetricOrder = Literal["given", "canonical"]

AtomFeatures = Literal["published", "extended"]

SELF_LOOP_BOND_TYPES = (0, 4, 5)
"""Rows of the bond table that self loops may use.

Published weights use row 0, that of single bonds; no bond uses rows 4 and 5.
"""


class GraphEncoderConfig(PretrainedConfig):
    """Sizes of the graph encoder, a graph isomorphism network (GIN) with edge features.

    Args:
        hidden_size: Width of an atom's state.
        num_layers: Number of message-passing layers.
        batch_norm_eps: Value added to the variance in the layers' batch norm.
        layer_norm_eps: Value added to the variance in the readout's layer norm.
        dropout: Dropout probability after each layer, in training only.
        self_loop_bond_type: Row of the bond table for an atom's loop to itself, one of
            `SELF_LOOP_BOND_TYPES`. Published weights use 0, the row of single bonds; 4 gives self
            loops a row of their own.
        count_features: Number of learned atom kinds whose counts enter the pooled token. Mean
            pooling and attention cannot tell a molecule from one twice its size. Published weights
            have 0.
        environment_buckets: Number of rows, a power of two, that environments of each radius are
            hashed to. A table learns recurring substructures at once, which message passing needs
            long training to tell apart. Published weights have 0, meaning no table.
        environment_radius: Number of bonds of the largest environment, at least 1.
        environment_rows: Capacity of a vocabulary of the environments in training molecules, which
            replaces the hashed table; other environments add nothing. Published weights have 0.
        environment_dropout: Probability that an environment is hidden in training.
        molecule_rows: Capacity of a vocabulary of whole molecules that many training pairs contain.
            Published weights have 0.
        molecule_dropout: Probability that such a molecule is treated as unknown in training.
        atom_features: Features of an atom: ``published`` are element and chirality; ``extended``
            adds formal charge, hydrogens, ring size, hybridization or aromaticity, and radical
            electrons. See ``docs/concepts/atom-features.md``.
        descriptors: Whether a vector of RDKit descriptors of the molecule enters the pooled token.
            Published weights do not use it.
    """

    model_type = "moltc_graph_encoder"

    def __init__(
        self,
        hidden_size: int = 300,
        num_layers: int = 5,
        batch_norm_eps: float = 1e-5,
        layer_norm_eps: float = 1e-5,
        dropout: float = 0.0,
        self_loop_bond_type: int = 0,
        count_features: int = 0,
        environment_buckets: int = 0,
        environment_radius: int = 2,
        environment_rows: int = 0,
        environment_dropout: float = 0.2,
        molecule_rows: int = 0,
        molecule_dropout: float = 0.5,
        atom_features: AtomFeatures = "published",
        descriptors: bool = False,
        **kwargs: Any,
    ) -> None:
        self.descriptors = descriptors
        if atom_features not in get_args(AtomFeatures):
            raise ValueError(
                f"atom_features {atom_features!r} is not one of {', '.join(get_args(AtomFeatures))}"
            )
        self.atom_features: AtomFeatures = atom_features
        if environment_radius < 1:
            raise ValueError(f"environment_radius {environment_radius} is less than one bond")
        self.environment_radius = environment_radius
        if environment_buckets < 0 or environment_buckets & (environment_buckets - 1):
            raise ValueError(f"environment_buckets {environment_buckets} is not a power of two")
        self.environment_buckets = environment_buckets
        if environment_rows < 0 or molecule_rows < 0:
            raise ValueError(
                f"environment_rows {environment_rows} or molecule_rows {molecule_rows} is negative"
            )
        if environment_rows and environment_buckets:
            raise ValueError("environment_rows and environment_buckets exclude each other")
        self.environment_rows = environment_rows
        self.environment_dropout = environment_dropout
        self.molecule_rows = molecule_rows
        self.molecule_dropout = molecule_dropout
        if count_features < 0:
            raise ValueError(f"count_features {count_features} is negative")
        self.count_features = count_features
        if self_loop_bond_type not in SELF_LOOP_BOND_TYPES:
            raise ValueError(
                f"self_loop_bond_type {self_loop_bond_type} is not one of {SELF_LOOP_BOND_TYPES}"
            )
        self.self_loop_bond_type = self_loop_bond_type
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.batch_norm_eps = batch_norm_eps
        self.layer_norm_eps = layer_norm_eps
        self.dropout = dropout
        super().__init__(**kwargs)


class QFormerConfig(PretrainedConfig):
    """Sizes of the Q-Former, whose queries attend to a molecule's atoms.

    Args:
        num_queries: Number of queries, which is the number of tokens of each molecule.
        hidden_size: Width of a query.
        num_layers: Number of transformer layers.
        num_attention_heads: Number of heads; must divide ``hidden_size``.
        intermediate_size: Width of the feed-forward layers.
        cross_attention_frequency: Distance between layers with cross-attention; layers 0, f,
            2f, ... have it.
        layer_norm_eps: Value added to the variance in layer norms.
        dropout: Dropout probability of attention and hidden states, in training only.
        pooled_skip: Whether a linear layer adds the molecule's pooled token to the queries' output.
            Published weights have no such layer.
    """

    model_type = "moltc_qformer"

    def __init__(
        self,
        num_queries: int = 8,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        cross_attention_frequency: int = 2,
        layer_norm_eps: float = 1e-12,
        dropout: float = 0.1,
        pooled_skip: bool = False,
        **kwargs: Any,
    ) -> None:
        self.pooled_skip = pooled_skip
        if hidden_size % num_attention_heads:
            raise ValueError(
                f"Q-Former hidden_size {hidden_size} is not a multiple of its "
                f"{num_attention_heads} attention heads"
            )
        self.num_queries = num_queries
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.cross_attention_frequency = cross_attention_frequency
        self.layer_norm_eps = layer_norm_eps
        self.dropout = dropout
        super().__init__(**kwargs)


class MoltcConfig(PretrainedConfig):
    """Configuration of a MolTC model on any causal language model.

    Args:
        graph_encoder_config: Sizes of the graph encoder.
        qformer_config: Sizes of the Q-Former.
        text_config: Configuration of the language model; its vocabulary includes the molecule
            token.
        projector_sharing: Number of projectors: one (``shared``), one for each role in the pair
            (``role``), or one for each task and role (``task_role``).
        tasks: Names of the tasks that the checkpoint answers; required for ``task_role``.
        num_roles: Number of roles; molecules beyond the last role share its projector.
        molecule_token: Placeholder of a molecule in prompts.
        molecule_token_id: Id of the placeholder, which is set in every checkpoint; each molecule is
            expanded to ``num_queries`` of it.
        max_atoms: Maximum number of atoms of a molecule.
        max_smiles_characters: Maximum length of a SMILES.
        max_molecules: Maximum number of molecules in a prompt.
        prompt_style: Name of the prompt style the checkpoint was trained with, a key of
            `moltc_vllm.tasks.STYLES`.
        molecule_prompt: Template of one molecule in the prompts of a published style.
        symmetric_order: Order of the molecules in prompts of symmetric tasks: as ``given`` by the
            user, or ``canonical``, sorted by their keys, so that the answer does not depend on the
            given order. See `moltc_vllm.models.prompt_composer.PromptComposer`.
        standardization: How molecules are standardized before they are encoded, see
            `moltc_vllm.chem.standardize`. The prompt shows the SMILES as given.
        mask_molecule_token: Whether the placeholder's logit is masked. The published code does not
            mask it, and its embedding is random; unmasked logits are only reproducible where the
            checkpoint contains that row. See ``docs/concepts/published-model.md``.
    """

    model_type = "moltc"
    sub_configs = {  # noqa: RUF012 (transformers expects a plain dict)
        "graph_encoder_config": GraphEncoderConfig,
        "qformer_config": QFormerConfig,
        "text_config": AutoConfig,
    }

    def __init__(
        self,
        graph_encoder_config: GraphEncoderConfig | dict[str, Any] | None = None,
        qformer_config: QFormerConfig | dict[str, Any] | None = None,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        projector_sharing: ProjectorSharing = "shared",
        tasks: list[str] | tuple[str, ...] = (),
        num_roles: int = 2,
        molecule_token: str = "<mol>",
        molecule_token_id: int = -1,
        max_atoms: int = 512,
        max_smiles_characters: int = 2048,
        max_molecules: int = 16,
        prompt_style: str = MOLTC_STYLE.name,
        molecule_prompt: str | None = None,
        symmetric_order: SymmetricOrder = "given",
        standardization: Standardization = "as-drawn",
        mask_molecule_token: bool = True,
        **kwargs: Any,
    ) -> None:
        if projector_sharing not in get_args(ProjectorSharing):
            raise ValueError(
                f"projector_sharing {projector_sharing!r} is not one of "
                f"{', '.join(get_args(ProjectorSharing))}"
            )
        if projector_sharing == "task_role" and not tasks:
            raise ValueError(
                "projector_sharing 'task_role' needs the names of the tasks in `tasks`"
            )
        if symmetric_order not in get_args(SymmetricOrder):
            raise ValueError(
                f"symmetric_order {symmetric_order!r} is not one of "
                f"{', '.join(get_args(SymmetricOrder))}"
            )
        self.graph_encoder_config = _as_config(graph_encoder_config, GraphEncoderConfig)
        self.qformer_config = _as_config(qformer_config, QFormerConfig)
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        language_config: Any = text_config or AutoConfig.for_model("opt")
        self.text_config = language_config
        self.projector_sharing: ProjectorSharing = projector_sharing
        self.tasks = list(tasks)
        self.num_roles = num_roles
        self.molecule_token = molecule_token
        self.molecule_token_id = molecule_token_id
        self.max_atoms = max_atoms
        self.max_smiles_characters = max_smiles_characters
        self.max_molecules = max_molecules
        get_style(prompt_style, molecule_prompt)  # raises for an unknown style
        self.prompt_style = prompt_style
        self.molecule_prompt = molecule_prompt
        self.symmetric_order: SymmetricOrder = symmetric_order
        self.standardization: Standardization = check_standardization(standardization)
        self.mask_molecule_token = mask_molecule_token
        kwargs.setdefault("architectures", ["MoltcForConditionalGeneration"])
        # Generic transformers code reads this setting from the outer configuration.
        kwargs["tie_word_embeddings"] = language_config.tie_word_embeddings
        super().__init__(**kwargs)

    @property
    def style(self) -> PromptStyle:
        """Prompt style of the checkpoint."""
        return get_style(self.prompt_style, self.molecule_prompt)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PretrainedConfig:
        """Return the language model's configuration, the only text model."""
        return self.text_config


def _as_config(value: Any, config_class: type[PretrainedConfig]) -> Any:
    if value is None:
        return config_class()
    return config_class(**value) if isinstance(value, dict) else value
