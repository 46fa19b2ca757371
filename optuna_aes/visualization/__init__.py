"""What a search found, as plotly figures and as one HTML page."""

from optuna_aes.visualization._compare import compare_report, plot_compare, plot_cost, plot_stability
from optuna_aes.visualization._history import plot_history
from optuna_aes.visualization._inherited import plot_inherited
from optuna_aes.visualization._pareto import plot_pareto
from optuna_aes.visualization._report import report
from optuna_aes.visualization._sizes import plot_sizes
from optuna_aes.visualization._stability import plot_agreement, plot_picks, stability_report

__all__ = [
    "compare_report",
    "plot_agreement",
    "plot_compare",
    "plot_cost",
    "plot_history",
    "plot_inherited",
    "plot_pareto",
    "plot_picks",
    "plot_sizes",
    "plot_stability",
    "report",
    "stability_report",
]
