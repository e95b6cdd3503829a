"""What the scene remembers of the panel: typed fields over one vtkMRMLScriptedModuleNode."""


class _Text:
    def __init__(self, default: str = ""):
        self.default = default

    def __set_name__(self, owner, name: str):
        self.name = name

    def __get__(self, state, owner=None) -> str:
        if state is None:
            return self
        return state.node.GetParameter(self.name) or self.default

    def __set__(self, state, value: str):
        if self.__get__(state) != value:
            state.node.SetParameter(self.name, value)


class _Flag(_Text):
    def __get__(self, state, owner=None) -> bool:
        return super().__get__(state, owner) == "true"

    def __set__(self, state, value: bool):
        super().__set__(state, "true" if value else "false")


class _Node:
    def __set_name__(self, owner, name: str):
        self.name = name

    def __get__(self, state, owner=None):
        return self if state is None else state.node.GetNodeReference(self.name)

    def __set__(self, state, node):
        if self.__get__(state) is not node:
            state.node.SetNodeReferenceID(self.name, node.GetID() if node else None)


class PanelState:
    """The panel's choices; stored in `node`, hence saved with the scene and restored with it.

    >>> state = PanelState(logic.getParameterNode())
    >>> state.inputVolume = volumeNode
    """

    inputVolume = _Node()
    roi = _Node()
    resultSegmentation = _Node()
    modelId = _Text()
    device = _Text("auto")
    showSurface = _Flag()

    def __init__(self, node):
        self.node = node
