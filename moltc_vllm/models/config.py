"""`MoltcConfig`: everything a checkpoint's ``config.json`` says."""

from __future__ import annotations

from typing import Any, Literal, get_args

from transformers import AutoConfig, PretrainedConfig

from moltc_vllm.tasks import PromptStyle, get_style
from moltc_vllm.tasks.style import OWN_STYLE

ProjectorSharing = Literal["shared", "role", "task_role"]

SELF_LOOP_BOND_TYPES = (0, 4, 5)
"""As a single bond (published), or one of the bond tables' rows that no bond has."""


class GraphEncoderConfig(PretrainedConfig):
    """Sizes of the graph isomorphism network (GIN with edge features).

    Args:
        hidden_size: Width of an atom's state.
        num_layers: Message-passing layers.
        batch_norm_eps: Added to the variance by the layers' batch norm.
        layer_norm_eps: Added to the variance by the read-out's layer norm.
        dropout: Dropout after each layer, in training only.
        self_loop_bond_type: Row of the bond tables that an atom's loop to itself takes. Published
            weights share row 0 with single bonds; 4 is a row of its own.
        count_features: Kinds of atoms that are learned and counted, for the pooled token: means
            and attention alone cannot tell a molecule from one twice its size. Published weights
            have none.
        environment_buckets: Rows of the table of atom environments of each radius; an atom's
            surroundings within one bond, two and so on are hashed to a row each (a power of two).
            What recurs in a few molecules only is learned from a table at once, which message
            passing takes long to tell apart. 0, as published: no table.
        environment_radius: Bonds of the largest environments.
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
        **kwargs: Any,
    ) -> None:
        if environment_radius < 1:
            raise ValueError(f"environment_radius {environment_radius} is less than one bond")
        self.environment_radius = environment_radius
        if environment_buckets < 0 or environment_buckets & (environment_buckets - 1):
            raise ValueError(f"environment_buckets {environment_buckets} is not a power of two")
        self.environment_buckets = environment_buckets
        if count_features < 0:
            raise ValueError(f"count_features {count_features} is negative")
        self.count_features = count_features
        if self_loop_bond_type not in SELF_LOOP_BOND_TYPES:
            raise ValueError(
                f"self_loop_bond_type {self_loop_bond_type} is none of {SELF_LOOP_BOND_TYPES}"
            )
        self.self_loop_bond_type = self_loop_bond_type
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.batch_norm_eps = batch_norm_eps
        self.layer_norm_eps = layer_norm_eps
        self.dropout = dropout
        super().__init__(**kwargs)


class QFormerConfig(PretrainedConfig):
    """Sizes of the Q-Former: queries that attend to a molecule's atoms.

    Args:
        num_queries: Molecule tokens that come out.
        hidden_size: Width of a query.
        num_layers: Transformer layers.
        num_attention_heads: Heads; must divide ``hidden_size``.
        intermediate_size: Width of the feed-forward part.
        cross_attention_frequency: Layers 0, f, 2f, ... look at the atoms.
        layer_norm_eps: Added to the variance.
        dropout: Dropout of attention and hidden states, in training only.
        pooled_skip: Whether a molecule's pooled token is added to what the queries found, through
            a linear layer. Not in published weights.
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
    """Configuration of a MolTC model; ``text_config`` may be any causal language model's.

    Args:
        graph_encoder_config: Graph encoder sizes.
        qformer_config: Q-Former sizes.
        text_config: The language model; its vocabulary includes the molecule token.
        projector_sharing: ``shared``: one projector; ``role``: one per place in the pair;
            ``task_role``: one per task and place.
        tasks: Names of the tasks the checkpoint answers; with ``task_role`` each has projectors.
        num_roles: Places a molecule can have; the last one holds for all further molecules.
        molecule_token: Placeholder in prompts, one per molecule.
        molecule_token_id: Its id, always set in a checkpoint; every molecule becomes
            ``num_queries`` of it.
        max_atoms: Larger molecules are refused.
        max_smiles_characters: Longer SMILES are refused.
        max_molecules: Prompts with more molecules are refused.
        prompt_style: How the checkpoint is asked, one of `moltc_vllm.tasks.STYLES`.
        molecule_prompt: Text of one molecule in a published style's prompt.
        mask_molecule_token: Whether the placeholder's logit is masked. The published code does not
            mask it, and has a random row there; only where that row is known it may stay.
    """

    model_type = "moltc"
    sub_configs = {  # noqa: RUF012 (transformers' own spelling)
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
        prompt_style: str = OWN_STYLE.name,
        molecule_prompt: str | None = None,
        mask_molecule_token: bool = True,
        **kwargs: Any,
    ) -> None:
        if projector_sharing not in get_args(ProjectorSharing):
            raise ValueError(
                f"projector_sharing {projector_sharing!r} is none of {get_args(ProjectorSharing)}"
            )
        if projector_sharing == "task_role" and not tasks:
            raise ValueError("projector_sharing 'task_role' needs the names of the tasks")
        self.graph_encoder_config = _as_config(graph_encoder_config, GraphEncoderConfig)
        self.qformer_config = _as_config(qformer_config, QFormerConfig)
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        language: Any = text_config or AutoConfig.for_model("opt")
        self.text_config = language
        self.projector_sharing: ProjectorSharing = projector_sharing
        self.tasks = list(tasks)
        self.num_roles = num_roles
        self.molecule_token = molecule_token
        self.molecule_token_id = molecule_token_id
        self.max_atoms = max_atoms
        self.max_smiles_characters = max_smiles_characters
        self.max_molecules = max_molecules
        get_style(prompt_style, molecule_prompt)  # a wrong one is named now
        self.prompt_style = prompt_style
        self.molecule_prompt = molecule_prompt
        self.mask_molecule_token = mask_molecule_token
        kwargs.setdefault("architectures", ["MoltcForConditionalGeneration"])
        # The language model's own setting decides; generic code asks the outer configuration.
        kwargs["tie_word_embeddings"] = language.tie_word_embeddings
        super().__init__(**kwargs)

    @property
    def style(self) -> PromptStyle:
        """The prompt style, ready for use."""
        return get_style(self.prompt_style, self.molecule_prompt)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PretrainedConfig:
        """The language model's configuration, which is the only text model here."""
        return self.text_config


def _as_config(value: Any, kind: type[PretrainedConfig]) -> Any:
    if value is None:
        return kind()
    return kind(**value) if isinstance(value, dict) else value
