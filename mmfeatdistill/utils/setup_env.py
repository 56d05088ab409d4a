"""Registers everything of this project, as each MM library does under the same name."""
import datetime
import warnings

from mmengine.registry import DefaultScope

from mmfeatdistill import registry


def register_all_modules(init_default_scope: bool = True) -> None:
    """Registers all models, hooks, optimizer wrappers and strategies of this project.

    A config that names the project needs none of it, as everything is found on first use. It is for scripts that
    build by bare names, and for ``mmengine.hub.get_model('mmfeatdistill::...')``, which calls it.

    Args:
        init_default_scope (bool): Whether ``mmfeatdistill`` becomes the current default scope. Inside a scope of a
            task library leave it off, or the names of that library are no longer found. Defaults to True.

    Examples:
        >>> register_all_modules(init_default_scope=False)
        >>> 'FeatureDistiller' in registry.MODELS.module_dict
        True
    """
    for room in (registry.MODELS, registry.HOOKS, registry.OPTIM_WRAPPERS, registry.STRATEGIES):
        room.import_from_location()
    if not init_default_scope:
        return
    current = DefaultScope.get_current_instance()
    if current is None or not DefaultScope.check_instance_created(registry.SCOPE):
        DefaultScope.get_instance(registry.SCOPE, scope_name=registry.SCOPE)
    elif current.scope_name != registry.SCOPE:
        warnings.warn(f'The default scope {current.scope_name!r} is replaced by {registry.SCOPE!r}; '
                      'register_all_modules(init_default_scope=False) keeps it.', stacklevel=2)
        # Instances are kept by name, and the newest of them is the current one.
        DefaultScope.get_instance(f'{registry.SCOPE}-{datetime.datetime.now()}', scope_name=registry.SCOPE)
