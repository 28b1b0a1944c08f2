// Countersign's definitions and initiative, assigned to the resource groups' clusters.
//
//   az deployment sub create --location westeurope --template-file azure-policy/bicep/main.bicep --parameters effect=Audit
targetScope = 'subscription'

@description('What happens to Pods with images that are not trusted.')
@allowed(['Audit', 'Deny', 'Disabled'])
param effect string = 'Audit'

@description('Namespaces to leave out.')
param excludedNamespaces array = ['kube-system', 'gatekeeper-system', 'azure-arc', 'aks-istio-system', 'countersign-system']

var trustedImages = loadJsonContent('../trusted-images.json')
var imagesByDigest = loadJsonContent('../images-by-digest.json')
var noEndOfLifeImages = loadJsonContent('../no-end-of-life-images.json')
var initiative = loadJsonContent('../initiative.json')

resource trusted 'Microsoft.Authorization/policyDefinitions@2023-04-01' = {
  name: 'countersign-trusted-images'
  properties: trustedImages
}

resource digest 'Microsoft.Authorization/policyDefinitions@2023-04-01' = {
  name: 'countersign-images-by-digest'
  properties: imagesByDigest
}

resource endOfLife 'Microsoft.Authorization/policyDefinitions@2023-04-01' = {
  name: 'countersign-no-end-of-life-images'
  properties: noEndOfLifeImages
}

resource set 'Microsoft.Authorization/policySetDefinitions@2023-04-01' = {
  name: 'countersign'
  properties: {
    displayName: initiative.displayName
    description: initiative.description
    policyType: initiative.policyType
    metadata: initiative.metadata
    version: initiative.version
    parameters: initiative.parameters
    policyDefinitionGroups: initiative.policyDefinitionGroups
    policyDefinitions: [
      union(initiative.policyDefinitions[0], { policyDefinitionId: trusted.id })
      union(initiative.policyDefinitions[1], { policyDefinitionId: digest.id })
      union(initiative.policyDefinitions[2], { policyDefinitionId: endOfLife.id })
    ]
  }
}

resource assignment 'Microsoft.Authorization/policyAssignments@2023-04-01' = {
  name: 'countersign'
  properties: {
    displayName: initiative.displayName
    policyDefinitionId: set.id
    parameters: {
      trustedImagesEffect: { value: effect }
      excludedNamespaces: { value: excludedNamespaces }
    }
  }
}
