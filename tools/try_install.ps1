<#
.SYNOPSIS
Tries install.ps1 with a directory of wheels: install, install again, be refused, remove.

.EXAMPLE
tools\try_install.ps1 -Shell powershell -From wheels
#>
[CmdletBinding()]
param(
    # Which PowerShell runs it.
    [Parameter(Mandatory)]
    [ValidateSet('pwsh', 'powershell')]
    [string] $Shell,

    # A directory with our wheel and all that it needs.
    [Parameter(Mandatory)]
    [string] $From
)

Set-StrictMode -Version 3
$ErrorActionPreference = 'Stop'
$Script = Join-Path (Split-Path $PSScriptRoot) 'install.ps1'
$Place = Join-Path ([IO.Path]::GetTempPath()) "try install $PID"
New-Item -Path $Place -ItemType Directory | Out-Null
$Prefix = Join-Path $Place 'a prefix'

# How install.ps1 ends with these arguments.
function Invoke-Install([string[]] $Arguments) {
    $ErrorActionPreference = 'Continue'
    & $Shell -NoProfile -ExecutionPolicy Bypass -File $Script @Arguments | Out-Host
    return $LASTEXITCODE
}

function Assert-That([bool] $Held, [string] $What) {
    if (-not $Held) { throw "not so: $What" }
    Write-Output "so it is: $What"
}

function Test-UserPath {
    return [Environment]::GetEnvironmentVariable('Path', 'User') -split ';' -contains $bin
}

$bin = Join-Path $Prefix 'bin'
$arguments = '-From', $From, '-NoConstraints', '-Prefix', $Prefix
foreach ($turn in 'first', 'second') {
    Assert-That ((Invoke-Install $arguments) -eq 0) "a $turn installation succeeds"
    foreach ($program in 'tunnel-rs', 'tunnel-rs-ice', 'tunnel-rs-vpn') {
        $said = & (Join-Path $bin "$program.exe") --version
        Assert-That ($said -like "$program *") "$program starts"
    }
}
$environments = @(Get-ChildItem -LiteralPath $Prefix -Directory -Filter 'env-*')
Assert-That ($environments.Count -eq 1) 'one environment is left'
Assert-That (Test-UserPath) 'the PATH has the programs'

$wheel = (Get-ChildItem -LiteralPath $From -Filter 'tunnel_rs-*.whl').FullName
$refused = '-Wheel', $wheel, '-Sha256', ('0' * 64), '-Prefix', $Prefix
Assert-That ((Invoke-Install $refused) -eq 1) 'a wheel with another hash is refused'
Assert-That ((Invoke-Install @('v99.0', '-From', $From, '-NoConstraints', '-Prefix', $Prefix)) -eq 1) `
    'a version that is not there is refused'
& (Join-Path $bin 'tunnel-rs.exe') --version | Out-Null
Assert-That ($LASTEXITCODE -eq 0) 'what was installed still runs'

$other = Join-Path $Prefix 'something else.txt'
New-Item -Path $other -ItemType File | Out-Null
Assert-That ((Invoke-Install @('-Uninstall', '-Prefix', $Prefix)) -eq 0) 'it is removed'
Assert-That (Test-Path -LiteralPath $other) 'a file that is not ours stays'
Assert-That (-not (Test-Path -LiteralPath $bin)) 'the programs are gone'
Assert-That (-not (Test-UserPath)) 'the PATH has them no more'
Assert-That ((Invoke-Install @('-Uninstall', '-Prefix', $Prefix)) -eq 1) 'nothing is there to remove'
Remove-Item -LiteralPath $Place -Recurse -Force
